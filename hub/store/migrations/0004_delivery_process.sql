-- Which process made an attempt or took a message: the task log shows it. Rows of before have none.
ALTER TABLE deliveries ADD COLUMN host text, ADD COLUMN pid integer;
