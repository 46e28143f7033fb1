-- The last runs of one service, for its page and `hub log runs`, without reading those of all the others.
CREATE INDEX task_runs_service ON task_runs (service, id DESC) WHERE service IS NOT NULL;
