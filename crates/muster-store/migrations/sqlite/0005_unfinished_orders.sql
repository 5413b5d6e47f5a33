-- Orders whose effect on the records of their agents is not all committed: finished at the next start.
CREATE TABLE unfinished_effects (
    action_id TEXT NOT NULL PRIMARY KEY
) STRICT;
