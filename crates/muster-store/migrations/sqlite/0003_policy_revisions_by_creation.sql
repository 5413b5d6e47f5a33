-- Lists of what was done name revisions by their time, without reading what is in them.
CREATE INDEX policy_revisions_by_creation ON policy_revisions (created_at, policy_id, revision, created_by);
