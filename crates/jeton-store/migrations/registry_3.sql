-- What was answered, where that cannot be read from what is there.
ALTER TABLE recorded_requests ADD COLUMN answer TEXT;
