-- Who exists, and the secrets beside it. Bodies are JSON of the broker's records; what must be unique or searched has a column.
CREATE TABLE sealing (only INTEGER PRIMARY KEY CHECK (only = 1), key_id TEXT NOT NULL) STRICT;
CREATE TABLE identities (
  uid BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, schema INTEGER NOT NULL,
  authority BLOB NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE workloads (
  uid BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, schema INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE principals (principal TEXT PRIMARY KEY, workload BLOB NOT NULL REFERENCES workloads (uid) ON DELETE CASCADE) STRICT;
CREATE TABLE authorities (
  uid BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, schema INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE role_assignments (
  uid BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, schema INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE data_keys (owner BLOB PRIMARY KEY, nonce BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE secrets (
  owner BLOB NOT NULL, subject BLOB NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, schema INTEGER NOT NULL,
  nonce BLOB NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (owner, subject, kind)
) STRICT;
CREATE TABLE orphans (uid BLOB PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE recorded_requests (
  request_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, resource BLOB NOT NULL, at INTEGER NOT NULL
) STRICT;
