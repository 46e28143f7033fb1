-- Marks of the batch of a response queue that was stored last: by them messages are known that come again
-- because the process died, or the connection broke, between the commit and the acknowledgement. 16 bytes
-- each, one after another.
ALTER TABLE consumer_state ADD COLUMN last_batch bytea;
