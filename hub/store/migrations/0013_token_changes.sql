-- A changed token is announced like a changed service: processes cache tokens for seconds.
CREATE TRIGGER api_tokens_changed AFTER UPDATE OF name, hash, scope, expires_at, revoked_at OR DELETE ON api_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION hub_config_changed();
