-- How far the clock of a process's machine is ahead of the database's clock, in seconds.
ALTER TABLE heartbeats ADD COLUMN clock_offset double precision;
