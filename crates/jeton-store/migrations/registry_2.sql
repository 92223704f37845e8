-- Every remembered request forgets those that are too old: not by looking at all of them.
CREATE INDEX recorded_requests_by_time ON recorded_requests (at);
