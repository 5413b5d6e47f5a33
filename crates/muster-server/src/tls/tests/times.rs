//! Certificates and time, and the names that they must be good for.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::tls::validity::{Role, Validity, uncovered, wrong_purpose};

const DAY: i64 = 86_400;

fn at(days: i64) -> Timestamp {
    Timestamp::from_micros(days * DAY * 1_000_000)
}

fn valid(role: Role, from: i64, until: i64) -> Validity {
    Validity { role, subject: "CN=Site".into(), from: from * DAY, until: until * DAY }
}

#[test]
fn certificates_that_are_not_valid_yet_expiring_or_expired_cause_warnings() {
    let told =
        |validity: &Validity, days| validity.warning(at(days)).map(|warning| (warning.text, warning.keeps_agents_out));
    let server = valid(Role::Server, 1000, 1100);
    let (text, out) = told(&server, 999).unwrap();
    assert!(
        out && text.contains("not valid before 1972-09-27T00:00:00Z") && text.contains("clock says 1972-09-26"),
        "{text}"
    );
    assert_eq!(told(&server, 1000), None);
    assert_eq!(told(&server, 1086), None, "fourteen days are left");
    let (text, out) = told(&server, 1087).unwrap();
    assert!(!out && text.contains("the server's certificate expires in 13 days, at 1973-01-05T00:00:00Z"), "{text}");
    let (text, out) = told(&server, 1101).unwrap();
    assert!(out && text.contains("expired at 1973-01-05"), "{text}");
    // Agents must be given a new CA in time.
    let ca = valid(Role::Ca, 1000, 1100);
    assert_eq!(told(&ca, 1010), None);
    assert!(told(&ca, 1011).unwrap().0.contains("the fleet's own CA expires in 89 days"));
}

#[test]
fn every_client_ca_is_checked_at_startup_and_after_a_reload() {
    let (_keep, data) = data();
    let path = data.join("clients.pem");
    let bundle = |ends: &[(&str, i64, i64)]| {
        let pem = ends.iter().map(|(name, from, until)| client_ca(name, *from, *until)).collect::<String>();
        fs_err::write(&path, pem).unwrap();
    };
    bundle(&[("Gone", -30, -2), ("Later", 2, 30), ("Soon", -30, 13), ("Fine", -30, 20)]);
    let config = TlsConfig { client_ca: Some(path.clone()), ..TlsConfig::default() };
    let tls = Tls::open(config, authority(), urls(&[]), Arc::clone(&data), Arc::new(SystemClock)).unwrap();
    let told: Vec<Warning> = tls.warnings();
    let starts = ["Gone, expired at ", "Later, is not valid before ", "Soon, expires in 12 days, at "];
    let ca = |rest: &str| format!("a CA of client certificates (tls.client_ca), CN={rest}");
    assert_eq!(told.len(), starts.len(), "{told:?}");
    for (warning, start) in told.iter().zip(starts) {
        assert!(warning.text.starts_with(&ca(start)) && !warning.keeps_agents_out, "{warning:?}");
    }
    let left = |tls: &Tls| tls.seconds_left().into_iter().find(|(name, _)| *name == "client_ca").unwrap().1 / DAY;
    assert!((-3..=-1).contains(&left(&tls)), "the first to expire counts");
    bundle(&[("Fine", -30, 20)]);
    tls.reload().unwrap();
    assert_eq!(tls.warnings(), []);
    assert!((19..=20).contains(&left(&tls)));
}

/// Makes it valid between the midnights of two days, counted from today.
pub(super) fn limit(params: &mut CertificateParams, (from, until): (i64, i64)) {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let date = |days: i64| {
        let date = now.checked_add(jiff::Span::new().days(days)).unwrap();
        rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
    };
    (params.not_before, params.not_after) = (date(from), date(until));
}

fn client_ca(name: &str, from: i64, until: i64) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    limit(&mut params, (from, until));
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn certificates_of_clients_are_reported() {
    use rcgen::ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};

    for (purposes, is_wrong) in [
        (vec![], false),
        (vec![ServerAuth], false),
        (vec![ClientAuth, ServerAuth], false),
        (vec![Any], false),
        (vec![ClientAuth], true),
    ] {
        let mut params = CertificateParams::new(vec!["fleet.example".to_owned()]).unwrap();
        params.extended_key_usages.clone_from(&purposes);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(wrong_purpose(certificate.der()).is_some(), is_wrong, "{purposes:?}");
    }
}

#[test]
fn external_names_must_be_covered() {
    let certificate = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().clone()
    };
    let told = |names: &[&str], urls: &[&str]| {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        uncovered(&certificate(names), &urls).into_iter().map(|warning| warning.text).collect::<Vec<_>>()
    };
    let fine: [(&[&str], &[&str]); 6] = [
        (&["fleet.example"], &["https://fleet.example.:8220"]),
        (&["fleet.example"], &["https://fleet.example:8220", "https://FLEET.example:443"]),
        (&["*.example"], &["https://fleet.example:8220"]),
        (&["192.0.2.7", "2001:db8::7"], &["https://192.0.2.7:8220", "https://[2001:db8::7]:8220"]),
        (&["a.example", "b.example"], &["https://b.example:8220"]),
        (&["fleet.example"], &[]),
    ];
    for (names, urls) in fine {
        assert_eq!(told(names, urls), Vec::<String>::new(), "{names:?} {urls:?}");
    }
    let wrong: [(&[&str], &str); 5] = [
        (&["fleet.example"], "https://other.example:8220"),
        (&["*.example"], "https://a.fleet.example:8220"),
        (&["*.example"], "https://example:8220"),
        (&["fleet.example"], "https://192.0.2.7:8220"),
        (&[], "https://fleet.example:8220"),
    ];
    for (names, url) in wrong {
        let told = told(names, &[url]);
        assert!(told.len() == 1 && told[0].contains("does not cover") && told[0].contains("external_url"), "{told:?}");
    }
}

#[test]
fn certificate_from_a_clock_that_was_ahead_is_replaced() {
    let (_keep, data) = data();
    let clock = now_clock();
    let ahead = 400 * DAY * 1_000_000;
    // The CA is of today; only the certificate was made under the wrong clock.
    let kept = authority().unwrap().to_kept().unwrap();
    let open = || {
        let authority = Some(Authority::from_kept(&kept).unwrap());
        Tls::open(TlsConfig::default(), authority, urls(&[]), Arc::clone(&data), Arc::clone(&clock) as Arc<dyn Clock>)
    };
    open().unwrap();
    clock.0.fetch_add(ahead, Ordering::SeqCst);
    open().unwrap();
    let future = fs_err::read(data.join("server.crt")).unwrap();
    clock.0.fetch_sub(ahead, Ordering::SeqCst);
    let tls = open().unwrap();
    assert_ne!(fs_err::read(data.join("server.crt")).unwrap(), future);
    assert!(tls.warnings().is_empty());
    // The same while the server runs.
    clock.0.fetch_add(ahead, Ordering::SeqCst);
    assert!(tls.renew().unwrap());
    clock.0.fetch_sub(ahead, Ordering::SeqCst);
    assert!(!tls.warnings().is_empty());
    assert!(tls.renew().unwrap());
    assert!(tls.warnings().is_empty());
}

#[test]
fn own_ca_that_expires_or_is_not_valid_yet_causes_a_warning() {
    let (_keep, data) = data();
    let clock = now_clock();
    let tls =
        Tls::open(TlsConfig::default(), authority(), urls(&[]), data, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let left = |name: &str| tls.seconds_left().into_iter().find(|(known, _)| *known == name).unwrap().1 / DAY;
    assert_eq!((left("server"), left("ca")), (364, 3651));
    assert_eq!(tls.seconds_left().len(), 2, "each once");
    clock.0.fetch_add(3600 * DAY * 1_000_000, Ordering::SeqCst);
    tls.renew().unwrap();
    let told = tls.warnings();
    assert!(told.len() == 1 && told[0].text.contains("the fleet's own CA expires in 51 days"), "{told:?}");
    clock.0.fetch_add(60 * DAY * 1_000_000, Ordering::SeqCst);
    assert!(tls.warnings().iter().any(|warning| warning.keeps_agents_out && warning.text.contains("own CA expired")));
    clock.0.fetch_sub(3700 * DAY * 1_000_000, Ordering::SeqCst);
    assert!(tls.warnings().iter().any(|warning| warning.text.contains("the fleet's own CA is not valid before")));
}
