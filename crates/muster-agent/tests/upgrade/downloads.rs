//! Downloads from mirrors that fail in every way.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_RANGE, RANGE};
use muster_agent::net::{Request, Response, Server, Transport, TransportError};
use muster_agent::upgrade::Failed;
use muster_agent::upgrade::details::Stage;
use muster_agent::upgrade::disk::HostDisk;
use muster_agent::upgrade::pack::{Packed, SigningKey, pack};
use muster_agent::upgrade::package::{archive_name, manifest_name};
use muster_agent::upgrade::source::Source;

use crate::host::{Host, NEW, OLD, name, program};

/// What a mirror does with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Serves,
    ServesWithoutRanges,
    Breaks,
    Responds(u16),
}

/// A web server in memory.
struct Mirror {
    packed: Packed,
    script: Mutex<Vec<Does>>,
    then: Does,
    requests: Mutex<Vec<Request>>,
}

impl Mirror {
    fn new(packed: Packed, script: &[Does], then: Does) -> Arc<Self> {
        let script = Mutex::new(script.iter().rev().copied().collect());
        Arc::new(Self { packed, script, then, requests: Mutex::default() })
    }

    fn source(self: &Arc<Self>) -> Source {
        let server = Server { tls: true, host: "mirror.example".into(), port: 443, prefix: "/agents".into() };
        Source::Mirror(self.clone(), server)
    }
}

#[async_trait]
impl Transport for Mirror {
    async fn send(&self, _: &Server, request: Request) -> Result<Response, TransportError> {
        self.requests.lock().unwrap().push(request.clone());
        let does = self.script.lock().unwrap().pop().unwrap_or(self.then);
        let bytes = match request.path.strip_prefix('/') {
            Some(path) if path == archive_name(NEW) => &self.packed.archive,
            Some(path) if path == manifest_name(NEW) => &self.packed.manifest,
            _ => return Ok(response(404, HeaderMap::new(), b"")),
        };
        match does {
            Does::Breaks => Err(TransportError::Broken("cut".into())),
            Does::Responds(status) => Ok(response(status, HeaderMap::new(), b"<html>")),
            Does::ServesWithoutRanges => Ok(response(200, HeaderMap::new(), bytes)),
            Does::Serves => {
                let range = request.headers[RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap().to_owned();
                let (first, last) = range.split_once('-').unwrap();
                let first: usize = first.parse().unwrap();
                let end = (last.parse::<usize>().unwrap() + 1).min(bytes.len());
                let mut headers = HeaderMap::new();
                let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
                headers.insert(CONTENT_RANGE, range.parse().unwrap());
                Ok(response(206, headers, &bytes[first..end]))
            }
        }
    }
}

fn response(status: u16, headers: HeaderMap, body: &[u8]) -> Response {
    Response { status, headers, body: Bytes::copy_from_slice(body) }
}

async fn fails(host: &Host, source: Source) -> Failed {
    let failed = host.preparation(source, Arc::new(HostDisk)).run(NEW).await.unwrap_err();
    assert_eq!(host.installed(), [name(OLD).to_string()], "no home of a package that was rejected");
    let downloads = host.layout.downloads();
    let left = downloads.read_dir_utf8().map_or(0, Iterator::count);
    assert_eq!(left, 0, "no file is left (AG170)");
    failed
}

/// A package of several ranges.
fn large(host: &Host) -> Packed {
    let noise: Vec<u8> = (0..3_u64 << 20).map(|n| muster_core::hex::sha256(&n.to_le_bytes())[0]).collect();
    pack(NEW, &program(NEW), &[("noise", &noise)], &host.key).unwrap()
}

#[tokio::test]
async fn ag121_ag170_a_wrong_hash_or_signature_fails_at_once_and_leaves_nothing() {
    let host = Host::new();
    let good = host.offer(NEW);
    let other = pack(NEW, b"another program", &[], &host.key).unwrap();
    host.put(NEW, &Packed { archive: other.archive.clone(), ..good.clone() });
    let failed = fails(&host, host.directory()).await;
    assert_eq!(failed.stage, Stage::Downloading);
    assert!(failed.message.contains("shorter") || failed.message.contains("SHA-512"), "{failed}");
    let mut flipped = good.archive.clone();
    flipped[100] ^= 1;
    host.put(NEW, &Packed { archive: flipped, ..good.clone() });
    let failed = fails(&host, host.directory()).await;
    assert!(failed.stage == Stage::Downloading && failed.message.contains("SHA-512"), "{failed}");
    let stranger = pack(NEW, &program(NEW), &[], &SigningKey::generate().unwrap()).unwrap();
    host.put(NEW, &stranger);
    let failed = fails(&host, host.directory()).await;
    assert!(failed.stage == Stage::Downloading && failed.message.contains("not signed with a trusted"), "{failed}");
    fs_err::remove_file(host.packages.join(manifest_name(NEW))).unwrap();
    assert_eq!(fails(&host, host.directory()).await.stage, Stage::Downloading, "no manifest");
}

#[tokio::test(start_paused = true)]
async fn ag122_a_missing_package_is_not_retried_and_a_broken_connection_is() {
    let host = Host::new();
    let missing = Mirror::new(host.offer(NEW), &[], Does::Responds(404));
    let failed = fails(&host, missing.source()).await;
    assert!(failed.message.contains("404"), "{failed}");
    assert_eq!(missing.requests.lock().unwrap().len(), 1);
    let script = [Does::Breaks, Does::Responds(503), Does::Serves, Does::Breaks];
    let shaky = Mirror::new(host.offer(NEW), &script, Does::Serves);
    let preparation = host.preparation(shaky.source(), Arc::new(HostDisk));
    assert_eq!(preparation.run(NEW).await.unwrap(), name(NEW));
    assert_eq!(shaky.requests.lock().unwrap().len(), 5);
    let host = Host::new();
    let dead = Mirror::new(host.offer(NEW), &[], Does::Breaks);
    let preparation = host.preparation(dead.source(), Arc::new(HostDisk));
    let progress = preparation.progress.clone();
    let failed = preparation.run(NEW).await.unwrap_err();
    assert!(failed.message.contains("cut"), "{failed}");
    let metadata = progress.details(NEW, "").metadata;
    assert!(metadata.retry_error_msg.unwrap().contains("cut") && metadata.retry_until.is_some());
    assert!((3..20).contains(&dead.requests.lock().unwrap().len()), "it ends after ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_download_continues_where_it_was_cut() {
    let host = Host::new();
    let packed = large(&host);
    let downloads = host.layout.downloads();
    fs_err::create_dir_all(&downloads).unwrap();
    fs_err::write(downloads.join(archive_name(NEW)), &packed.archive[..1_500_000]).unwrap();
    let mirror = Mirror::new(packed.clone(), &[], Does::Serves);
    host.preparation(mirror.source(), Arc::new(HostDisk)).run(NEW).await.unwrap();
    let ranges: Vec<String> = mirror
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.headers[RANGE].to_str().unwrap().to_owned())
        .collect();
    assert!(ranges[1].starts_with("bytes=1500000-"), "{ranges:?}");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_another_download_is_discarded() {
    let host = Host::new();
    let packed = large(&host);
    let downloads = host.layout.downloads();
    fs_err::create_dir_all(&downloads).unwrap();
    fs_err::write(downloads.join(archive_name(NEW)), vec![0; 1_000_000]).unwrap();
    let mirror = Mirror::new(packed, &[], Does::Serves);
    assert_eq!(host.preparation(mirror.source(), Arc::new(HostDisk)).run(NEW).await.unwrap(), name(NEW));
}

#[tokio::test(start_paused = true)]
async fn a_mirror_without_ranges_works_and_gets_no_credentials() {
    let host = Host::new();
    let mirror = Mirror::new(large(&host), &[], Does::ServesWithoutRanges);
    host.preparation(mirror.source(), Arc::new(HostDisk)).run(NEW).await.unwrap();
    let requests = mirror.requests.lock().unwrap();
    assert_eq!(requests.len(), 2, "the whole archive at once");
    assert!(requests.iter().all(|request| !request.headers.contains_key("authorization")));
}

#[tokio::test]
async fn ag123_too_little_space_fails_before_the_download_with_both_numbers() {
    let host = Host::new();
    let packed = host.offer(NEW);
    let mirror = Mirror::new(packed, &[], Does::Serves);
    let failed = fails_on(&host, mirror.source()).await;
    assert!(failed.message.contains("bytes are needed, 1000 are free"), "{failed}");
    assert_eq!((failed.stage, mirror.requests.lock().unwrap().len()), (Stage::Downloading, 1), "only the manifest");
}

async fn fails_on(host: &Host, source: Source) -> Failed {
    host.preparation(source, Arc::new(crate::faulty::Small)).run(NEW).await.unwrap_err()
}
