-- Of one enrollment key and one enrollment id, one agent waits for its first check-in: whichever node enrols it.
-- Of those that may have come in twice before, the older ones lose the handle, nothing else.
UPDATE agents SET enrollment_id = NULL
WHERE enrollment_id IS NOT NULL AND last_checkin IS NULL AND EXISTS (
    SELECT 1 FROM agents other
    WHERE other.enrollment_id = agents.enrollment_id AND other.enrollment_key_id = agents.enrollment_key_id
    AND other.last_checkin IS NULL AND (other.enrolled_at, other.id) > (agents.enrolled_at, agents.id)
);
DROP INDEX agents_by_enrollment_id;
CREATE UNIQUE INDEX agents_by_enrollment_id ON agents (enrollment_id, enrollment_key_id)
WHERE enrollment_id IS NOT NULL AND last_checkin IS NULL;
