//! Every store of files and objects keeps every promise of its block.
//!
//! The suite itself is `dhow_blocks::conformance::blob`.

use dhow_blocks::blob::{BlobError, BlobStore, List, Method, Name, Put};
use dhow_blocks::conformance::{Runtime, blob};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, open};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

async fn try_open(
    component_type: &str,
    metadata: &[(&str, &str)],
    folder: &Path,
) -> Result<Arc<dyn BlobStore>, OpenError> {
    let component = ComponentSpec {
        name: "pictures".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    };
    match open(component, OpenContext { data_dir: folder.to_owned() }).await? {
        Opened::Blob(store) => Ok(store),
        _ => panic!("{component_type} is no store of files"),
    }
}

fn name(bucket: &str, key: &str) -> Name {
    Name { bucket: bucket.to_owned(), key: key.to_owned(), ..Name::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("made/here");
    let field = [("rootPath", root.to_str().unwrap())];
    let open = || async { try_open("blob.local", &field, folder.path()).await.unwrap() };
    let traits = blob::Traits { append: true, upload_lists: true, ..blob::Traits::default() };
    blob::suite("blob.local", TOKIO, traits, open).await.assert_passed();
    // Nothing half written stays.
    let left = std::fs::read_dir(root.join(".dhow-blobs/new")).unwrap().count();
    assert_eq!(left, 0, "files in .dhow-blobs/new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_confines_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "hunter2").unwrap();
    // Without a path of its own in the host's data.
    let store = try_open("file.local", &[], folder.path()).await.unwrap();
    let root = folder.path().join("files/pictures");
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret"), root.join("file")).unwrap();
    for key in ["link/secret", "file", ".dhow-blobs/new/x", "/../outside/secret"] {
        assert!(store.head(&name("", key)).await.is_err(), "{key}");
        assert!(store.get(&name("", key), Default::default()).await.is_err(), "{key}");
    }
    let write = store.put(&name("", "link/new"), "x".into(), Put::default()).await;
    assert!(write.is_err() && !outside.join("new").exists(), "{write:?}");
    // The root of the names is the folder.
    store.put(&name("", "/etc/passwd"), "x".into(), Put::default()).await.unwrap();
    assert_eq!(std::fs::read_to_string(root.join("etc/passwd")).unwrap(), "x");
    // Buckets are folders.
    store.put(&name("shop", "a"), "y".into(), Put::default()).await.unwrap();
    assert_eq!(std::fs::read_to_string(root.join("shop/a")).unwrap(), "y");
    let list = List { bucket: "nope".to_owned(), limit: 10, ..List::default() };
    assert!(matches!(store.list(&list).await, Err(BlobError::NotFound { .. })));
    for bucket in ["..", "a/b", ".dhow-blobs"] {
        assert!(store.head(&name(bucket, "a")).await.is_err(), "{bucket}");
    }
    let refused = try_open("blob.local", &[("rootPath", "/proc/self")], folder.path()).await.err().unwrap();
    assert!(refused.to_string().contains("rootPath"), "{refused}");
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_of_s3_keep_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    let address = super::s3::server(folder.path()).await;
    let endpoint = format!("http://localhost:{}", address.port());
    let fields = [("endpoint", endpoint.as_str()), ("accessKey", "key"), ("secretKey", "hunter2")];
    let one = [&fields[..], &[("bucket", "shop")]].concat();
    let traits = blob::Traits { metadata: true, smallest_part: 5 << 20, ..blob::Traits::default() };
    let open = || async { try_open("blob.s3", &one, folder.path()).await.unwrap() };
    blob::suite("blob.s3", TOKIO, traits, open).await.assert_passed();

    // Without a bucket of its own, names begin with one.
    let store = try_open("file.minio", &fields, folder.path()).await.unwrap();
    let put = Put { length: Some(5), ..Put::default() };
    store.put(&name("", "shop/hello.txt"), "hello".into(), put).await.unwrap();
    assert_eq!(store.head(&name("shop", "hello.txt")).await.unwrap().size, 5);
    assert!(store.head(&name("", "hello.txt")).await.is_err());
    let url = store.sign(&name("shop", "hello.txt"), Method::Get, Duration::from_secs(60)).await.unwrap();
    assert!(
        url.starts_with(&format!("{endpoint}/shop/hello.txt?")) && url.contains("X-Amz-Expires=60"),
        "{url}"
    );
    let wrong = [("secretKey", "wrong"), fields[0], fields[1]];
    let store = try_open("oss.s3", &wrong, folder.path()).await.unwrap();
    let refused = store.head(&name("shop", "hello.txt")).await;
    assert!(matches!(refused, Err(BlobError::Denied { .. })), "{refused:?}");
}

/// Another server, which checks no signatures and has what the one above lacks.
#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_of_moto_keep_the_promises() {
    let server = dhow_servers::moto().unwrap();
    let endpoint = format!("http://{}", server.address());
    let (key, secret) = dhow_servers::MOTO_KEYS;
    let fields =
        [("endpoint", endpoint.as_str()), ("accessKey", key), ("secretKey", secret), ("bucket", "shop")];
    let account = dhow_providers::s3::Account::open(dhow_providers::s3::AccountOptions {
        endpoint: endpoint.clone(),
        path_style: true,
        keys: Some((key.to_owned(), secret.to_owned(), None)),
        ..Default::default()
    });
    dhow_providers::blob::s3::S3::new(account.unwrap(), "shop").unwrap().create_bucket().await.unwrap();
    let traits = blob::Traits {
        metadata: true,
        smallest_part: 5 << 20,
        append: false,
        upload_lists: true,
        tags: true,
        access: true,
    };
    let open = || async { try_open("oss.s3", &fields, Path::new("unused")).await.unwrap() };
    blob::suite("oss.s3 of moto", TOKIO, traits, open).await.assert_passed();
}

/// Each is what another process would have.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_append_to_one_file_do_so_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let field = [("rootPath", root.to_str().unwrap())];
    let writers = (0..8_u8).map(|writer| async move {
        let store = try_open("file.local", &field, Path::new("unused")).await.unwrap();
        for _ in 0..20 {
            let line = vec![b'a' + writer; 1000].into();
            store.append(&name("", "log"), None, line, Put::default()).await.unwrap();
        }
    });
    futures::future::join_all(writers).await;
    let log = std::fs::read(root.join("log")).unwrap();
    assert_eq!(log.len(), 8 * 20 * 1000);
    assert!(log.chunks(1000).all(|line| line.iter().all(|byte| *byte == line[0])), "lines are torn");
}
