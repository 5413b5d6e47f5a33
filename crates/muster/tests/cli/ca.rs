//! `muster ca …`

use std::os::unix::fs::PermissionsExt as _;

use muster_core::hex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::world::{World, fails, finish, json, ok, world};

#[test]
fn ag95_the_ca_is_exported_with_the_fingerprint_that_agents_accept() {
    let stored = std::fs::read_to_string(world().data().join("ca.crt")).unwrap();
    let certificate = CertificateDer::from_pem_slice(stored.as_bytes()).unwrap();
    let fingerprint = hex::encode(&hex::sha256(&certificate));
    assert_eq!(ok(&["ca", "export"]).trim_end(), stored.trim_end());
    assert_eq!(ok(&["ca", "fingerprint"]), format!("{fingerprint}\n"));
    let shown = json(&["ca", "fingerprint"]);
    assert_eq!((&shown["sha256"], &shown["certificate"]), (&fingerprint.into(), &stored.as_str().into()));
    assert!(shown["expires_at"].as_str().unwrap().ends_with('Z'), "{shown}");
    assert_eq!(json(&["ca", "export"]), shown);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("exported.crt");
    let out = path.to_str().unwrap();
    assert_eq!(ok(&["ca", "export", "--out", out]).trim_end(), out);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), stored);
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o644, "an unprivileged agent can read the file");
    assert!(fails(1, &["ca", "export", "--out", out]).contains("already exists"));
}

#[test]
fn ag95_there_is_no_ca_to_export_if_agents_do_not_use_the_one_of_the_fleet() {
    let plain = World::start_with(&["--insecure-http"]);
    for verb in ["export", "fingerprint"] {
        let ran = finish(&mut plain.command(&["ca", verb]));
        assert!(ran.code == 3 && ran.out.is_empty() && ran.err.contains("tls.cert"), "{} {}", ran.code, ran.err);
    }
}
