//! Files that administrators store for agents: files for one agent, and artifacts that policies list.

use std::io::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsActions, ArtifactsWrite, Grant};
use muster_core::entropy::random_uuid;
use muster_core::file::{Artifact, CHUNK_BYTES, DeliverableFile};
use muster_core::hex;
use muster_core::id::FileId;
use muster_store::{FileWrite, Write};
use serde_json::json;

use super::audit::audit_line;
use super::authority::Authorized;
use super::files::Files;

/// Maximum length of a file name or artifact identifier in bytes.
const MAX_NAME_BYTES: usize = 255;

impl Files {
    /// Stores a file that one agent may fetch.
    pub async fn offer(
        &self,
        agent: &Authorized<AgentRecord, AgentsActions>,
        name: &str,
        mime_type: &str,
        data: &Bytes,
    ) -> Result<DeliverableFile, Error> {
        check_name(name)?;
        let grant = agent.grant();
        let now = self.clock.now();
        let file = DeliverableFile {
            id: FileId::trusted(random_uuid(&*self.entropy)),
            name: name.to_owned(),
            mime_type: mime_type.to_owned(),
            size: length(data),
            sha256: hex::encode(&sha256(data)),
            agents: vec![agent.id.clone()],
            created_at: now,
        };
        let detail = json!({"agent": file.agents, "name": name, "size": file.size});
        let line = audit_line(grant.origin(), now, "file.offer", format!("file:{}", file.id), detail);
        self.store.commit(grant, with_content(&file, data, line)).await?;
        Ok(file)
    }

    /// Stores an artifact under the identifier that policies list; `compress` encodes it with zlib.
    pub async fn store_artifact(
        &self,
        grant: &Grant<ArtifactsWrite>,
        identifier: &str,
        data: &Bytes,
        compress: bool,
    ) -> Result<Artifact, Error> {
        check_name(identifier)?;
        let body = if compress { zlib(data)? } else { data.to_vec() };
        let now = self.clock.now();
        // Manifests carry both hashes: of the bytes that are downloaded, and of the content after decoding.
        let artifact = Artifact {
            identifier: identifier.to_owned(),
            decoded_sha256: hex::encode(&sha256(data)),
            decoded_size: length(data),
            encoded_sha256: hex::encode(&sha256(&body)),
            compression: if compress { "zlib" } else { "none" }.to_owned(),
            created_at: now,
        };
        let detail = json!({"sha256": artifact.decoded_sha256, "size": artifact.decoded_size});
        let line = audit_line(grant.origin(), now, "artifact.store", format!("artifact:{identifier}"), detail);
        self.store
            .commit(
                grant,
                vec![Write::File(FileWrite::PutArtifact { artifact: Box::new(artifact.clone()), body }), line],
            )
            .await?;
        Ok(artifact)
    }
}

/// Returns the writes that store a file.
pub(super) fn with_content(file: &DeliverableFile, data: &Bytes, line: Write) -> Vec<Write> {
    let mut writes = vec![Write::File(FileWrite::InsertFile(Box::new(file.clone()))), line];
    // In chunks of the size of uploads, so that both are stored and streamed by the same code.
    let chunks = data.chunks(CHUNK_BYTES as usize).zip(0_i64..);
    writes.extend(chunks.map(|(part, number)| {
        // All chunks are in one commit, so that no agent sees part of a file. The API limits the size of the request.
        Write::File(FileWrite::PutChunk { file: file.id.clone(), number, sha256: sha256(part), data: part.to_vec() })
    }));
    writes
}

/// Rejects names that are not safe in paths and headers, where agents and browsers see them.
fn check_name(name: &str) -> Result<(), Error> {
    let plain = !name.chars().any(|c| muster_core::reported::is_deceptive(c) || "/\\\"".contains(c))
        && name != "."
        && name != "..";
    if plain && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::invalid("name", format!("1 to {MAX_NAME_BYTES} bytes, without control characters, slashes and quotes")))
}

fn zlib(data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let encoded = encoder.write_all(data).and_then(|()| encoder.finish());
    encoded.map_err(Error::internal)
}

pub(super) fn length(data: &[u8]) -> i64 {
    i64::try_from(data.len()).unwrap_or(i64::MAX)
}

pub(super) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, data).as_ref());
    hash
}
