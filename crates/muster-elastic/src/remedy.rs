//! Remedies for refused requests, by error code.

/// Returns what an operator can do about `code`; empty if there is nothing to do.
pub fn of(code: &str) -> &'static str {
    match code {
        "ErrNoAuthHeader" => "send the agent's access key; only /api/status works without one",
        "ErrMalformedHeader" | "ErrMalformedToken" | "ErrInvalidToken" => {
            "pass the enrollment token exactly as `muster enrollment-key show` prints it, without quotes"
        }
        "ErrUnauthorized" | "ErrAgentInactive" | "Unauthorized" => {
            "the key is revoked, expired, or belongs to another server: enroll the agent again with a valid enrollment token"
        }
        "ErrAgentIdentity" => "two hosts may share one installation, for example after cloning: enroll the copy again",
        "EnrolledAfterBackup" => {
            "the agent enrolled after the backup that this server was restored from: enroll it again; it retries until then"
        }
        "AgentNotFound" | "ErrAgentCorrupted" => "enroll the agent again",
        "AgentNotReplaceable" => "unenroll the agent with this id first, or enroll under another id",
        "InvalidUserAgent" => "the User-Agent must contain the agent's version; check whether a proxy replaces it",
        "UnsupportedVersion" => "upgrade the agent, or change agents.lowest_version or agents.highest_version",
        "ErrInvalidAPIVersionFormat" | "ErrUnsupportedAPIVersion" => "upgrade this server or the agent",
        "BodyTooLarge" => "raise limits.checkin.max_body (or the max_body of the operation)",
        "UnsupportedMediaType" => "use gzip for check-ins only; check whether a proxy compresses requests",
        "RequestTimeout" => "the connection is slow, or a proxy delays requests; see timeouts.read",
        "RateLimit" => "too many requests per second; agents retry; see limits.*.interval and limits.*.burst",
        "MaxLimit" | "TooManyRequests" => "too many concurrent requests; agents retry; see limits.*.max",
        "Full" => "more agents than limits.max_connections or the limit of open files allows: raise the limit",
        "NoSuchPath" => "unknown path: check the URL that is configured in the agent or the proxy",
        "MethodNotAllowed" => "check the proxy or the monitor that sends it",
        "Malformed" | "HeaderTooLarge" => "check the proxy in between",
        "PlainHttp" => "use https:// in the agent's --url, or in the backend of the load balancer",
        "ProxyProtocol" => {
            "turn off the PROXY protocol for this server in the load balancer: no `send-proxy` in HAProxy, `proxy_protocol off` in nginx"
        }
        "TlsHandshake" => "pass the agent the CA certificate of this server (--certificate-authorities)",
        "ClientCertificate" => {
            "the client's certificate is expired, revoked, no X.509 v3 certificate, or of a CA that is not in tls.client_ca: replace it"
        }
        "NoCertificate" => {
            "give the agent a client certificate of a CA in tls.client_ca, or set tls.client_auth to optional"
        }
        "TooManyConnections" => "raise limits.max_connections or the limit of open files",
        "Displaced" => {
            "a program opens connections without sending requests: stop it, or raise limits.max_connections or the limit of open files"
        }
        "TooManyIdle" => {
            "a client opens connections and leaves them idle: check the agent with this key, or revoke the key"
        }
        "TooManyPolls" => {
            "two hosts may share one installation, for example after cloning: enroll the copy again; or a proxy repeats requests"
        }
        "SentAhead" => "the client sends requests without waiting for responses; check the proxy in between",
        "BadRequest" => {
            "the message states what is wrong: check the agent's version, or the program that sends the requests"
        }
        "ErrAgentIDMissing"
        | "ErrFieldRequired"
        | "ErrFileInfoBodyRequired"
        | "ErrPayloadRequired"
        | "ErrFileSizeRequired"
        | "ErrInvalidFileSize"
        | "ErrInvalidChunkNum"
        | "TransitHashRequired" => "the upload does not follow the protocol: check the program that sends it",
        "ErrFileSizeTooLarge" => "raise uploads.max_bytes, or delete old uploads of the agent",
        "ErrMissingChunks" | "ErrHashMismatch" | "ErrFailValidation" | "ErrUploadExpired" | "ErrUploadStopped"
        | "ErrStatusNoUploads" => "request the diagnostics again: this upload cannot be continued",
        "ErrFileFeatureDisable" => "enable uploads in the configuration of the server",
        _ => "",
    }
}
