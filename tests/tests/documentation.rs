//! What the documents promise in tables is what the programs do.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::fs;
use std::path::Path;

use trave_proto::fault::{Fault, GrpcStatus, Reason, Side};

#[test]
fn every_fault_stands_in_the_table_of_faults() {
    let document = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let rows: Vec<Vec<&str>> = document
        .lines()
        .skip_while(|line| !line.starts_with("| reason | gRPC status |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    assert_eq!(rows.len(), Reason::ALL.len(), "one row for each reason");
    for (row, reason) in rows.iter().zip(Reason::ALL) {
        let fault = Fault::before_call(*reason, Side::ClientServer, "");
        let again = if fault.retry_safe() { "safe" } else { "no" };
        assert_eq!(row[..3], [reason.as_str(), status_name(reason.grpc_status()), again]);
        assert!(row[3..].iter().all(|cell| !cell.is_empty()), "{} is not explained", reason.as_str());
    }
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let mut documents = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    documents.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        let linked = links(&text).map(|target| folder.join(target));
        for path in linked.chain(named(&text).map(|path| root().join(path))) {
            assert!(path.exists(), "{} names {}, which is not there", document.display(), path.display());
        }
    }
}

/// The targets of Markdown links into this repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

/// What stands between backticks and looks like a path of this repository.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let folders = ["proto/", "gateway/", "registry/", "certs/", "tests/", "docs/"];
    let code = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    // What the tests install for themselves is not part of the repository.
    code.filter(|span| !span.contains(' ') && !span.contains("/.work"))
        .filter(move |span| folders.iter().any(|folder| span.starts_with(folder)))
}

/// The names of gRPC's status codes.
fn status_name(status: GrpcStatus) -> &'static str {
    match status {
        GrpcStatus::Cancelled => "CANCELLED",
        GrpcStatus::InvalidArgument => "INVALID_ARGUMENT",
        GrpcStatus::DeadlineExceeded => "DEADLINE_EXCEEDED",
        GrpcStatus::NotFound => "NOT_FOUND",
        GrpcStatus::PermissionDenied => "PERMISSION_DENIED",
        GrpcStatus::ResourceExhausted => "RESOURCE_EXHAUSTED",
        GrpcStatus::Unimplemented => "UNIMPLEMENTED",
        GrpcStatus::Internal => "INTERNAL",
        GrpcStatus::Unavailable => "UNAVAILABLE",
        GrpcStatus::DataLoss => "DATA_LOSS",
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
