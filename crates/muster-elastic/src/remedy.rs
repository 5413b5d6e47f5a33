//! What an operator can do about a refused request, by the word of its error.

/// The remedy for `code`; empty where there is none.
pub fn of(code: &str) -> &'static str {
    match code {
        "ErrNoAuthHeader" => "send the agent's access key; only /api/status answers without one",
        "ErrMalformedHeader" | "ErrMalformedToken" | "ErrInvalidToken" => {
            "paste the enrollment token whole and unquoted, as `muster enrollment-key show` prints it"
        }
        "ErrUnauthorized" | "ErrAgentInactive" | "Unauthorized" => {
            "the key is revoked, expired or another server's: enroll the agent again with a valid enrollment token"
        }
        "ErrAgentIdentity" => "two hosts may share one installation, as clones do: enroll the copy again",
        "AgentNotFound" => "enroll the agent again",
        "AgentNotReplaceable" => "unenroll the agent with this id first, or enroll under another id",
        "InvalidUserAgent" => "the User-Agent must name the agent's version; does a proxy replace it?",
        "UnsupportedVersion" => "upgrade the agent, or change agents.lowest_version or agents.highest_version",
        "ErrInvalidAPIVersionFormat" | "ErrUnsupportedAPIVersion" => "upgrade this server or the agent",
        "BodyTooLarge" => "raise limits.checkin.max_body (or the max_body of the operation)",
        "UnsupportedMediaType" => "send gzip in a check-in, else no encoding; does a proxy compress requests?",
        "RequestTimeout" => "the connection is slow or a proxy holds requests back; see timeouts.read",
        "RateLimit" => "too many at once: they come again; see limits.*.interval and limits.*.burst",
        "MaxLimit" | "TooManyRequests" => "too many at a time: they come again; see limits.*.max",
        "Full" => "more agents than limits.max_connections or the limit of open files admit: raise it",
        "NoSuchPath" => "nothing is served here: check the agent's or the proxy's URL",
        "MethodNotAllowed" => "check the proxy or the monitor that sends it",
        "Malformed" | "HeaderTooLarge" => "check the proxy in between",
        "PlainHttp" => "use https:// in the agent's --url, or a balancer's backend",
        "TlsHandshake" => "give the agent the CA that signed this server's certificate (--certificate-authorities)",
        "TooManyConnections" => "raise limits.max_connections or the limit of open files",
        _ => "",
    }
}
