//! Files and objects of Layotto's API, over a folder; buckets of S3 are in `layotto_objects` and in the tests of the
//! providers.

use crate::layotto::{assert_code, client};
use crate::support::{RESOURCES, Wire, World, origin};
use bytes::Bytes;
use dhow_api::proto::layotto::runtime::*;
use dhow_api::proto::layotto::s3::object_storage_service_client::ObjectStorageServiceClient;
use dhow_api::proto::layotto::s3::*;
use futures::StreamExt as _;
use std::collections::BTreeMap;
use tonic::Code;

const STORES: &str = r"
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: files }
spec: { type: file.local, version: v1, metadata: [] }
";

/// More than one message of gRPC may hold.
const LARGE: usize = 9 << 20;

async fn world() -> World {
    World::with(&format!("{RESOURCES}{STORES}"), tempfile::tempdir().unwrap(), None).await
}

fn objects(world: &World) -> ObjectStorageServiceClient<Wire> {
    ObjectStorageServiceClient::with_origin(Wire::default(), origin(world.address))
}

fn file(store: &str, name: &str) -> Option<FileRequest> {
    Some(FileRequest { store_name: store.to_owned(), name: name.to_owned(), metadata: BTreeMap::new() })
}

/// The messages of a file; all but the first have content only.
fn upload(
    store: &str,
    name: &str,
    content: &[u8],
    metadata: &[(&str, &str)],
) -> impl futures::Stream<Item = PutFileRequest> + Send + 'static {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let first =
        PutFileRequest { store_name: store.to_owned(), name: name.to_owned(), data: Bytes::new(), metadata };
    let pieces: Vec<_> = content
        .chunks(1 << 20)
        .map(|piece| PutFileRequest { data: Bytes::copy_from_slice(piece), ..PutFileRequest::default() })
        .collect();
    futures::stream::iter(std::iter::once(first).chain(pieces))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_pass_in_pieces() {
    let world = world().await;
    let mut client = client(&world);
    let content: Vec<u8> = (0..LARGE).map(|index| (index % 251) as u8).collect();
    client.put_file(upload("files", "dir/large.bin", &content, &[])).await.unwrap();
    let get = |name: &str| GetFileRequest {
        store_name: "files".to_owned(),
        name: name.to_owned(),
        metadata: BTreeMap::new(),
    };
    let mut pieces = client.get_file(get("dir/large.bin")).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        assert!(piece.data.len() <= 102_400, "{} bytes in a message", piece.data.len());
        found.extend_from_slice(&piece.data);
    }
    assert!(found == content, "{} bytes came back, or others", found.len());
    let meta =
        client.get_file_meta(GetFileMetaRequest { request: file("files", "dir/large.bin") }).await.unwrap();
    let meta = meta.into_inner();
    assert_eq!(meta.size, LARGE as i64);
    assert!(meta.last_modified.starts_with("20") && meta.response.unwrap().metadata.contains_key("ETag"));

    for name in ["dir/a", "dir/b", "other"] {
        client.put_file(upload("files", name, b"1", &[])).await.unwrap();
    }
    let (mut names, mut marker) = (Vec::new(), String::new());
    loop {
        let list = ListFileRequest { request: file("files", "dir/"), page_size: 2, marker };
        let page = client.list_file(list).await.unwrap().into_inner();
        names.extend(page.files.into_iter().map(|file| file.file_name));
        marker = page.marker;
        if !page.is_truncated {
            break;
        }
    }
    assert_eq!(names, ["dir/a", "dir/b", "dir/large.bin"]);
    client.del_file(DelFileRequest { request: file("files", "dir/a") }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_have_layottos_codes() {
    let world = world().await;
    let mut client = client(&world);
    let exclusive = [("FileMode", "438"), ("FileFlag", "194")];
    for (what, code, answer) in [
        ("a file", Code::Ok, client.put_file(upload("files", "a", b"1", &exclusive)).await),
        (
            "a file that is there",
            Code::AlreadyExists,
            client.put_file(upload("files", "a", b"2", &exclusive)).await,
        ),
        ("appending", Code::Ok, client.put_file(upload("files", "a", b"2", &[("FileFlag", "1026")])).await),
        ("an unknown store", Code::InvalidArgument, client.put_file(upload("nope", "a", b"1", &[])).await),
        (
            "a name that leads out",
            Code::InvalidArgument,
            client.put_file(upload("files", "../a", b"1", &[])).await,
        ),
        (
            "deleting nothing",
            Code::NotFound,
            client.del_file(DelFileRequest { request: file("files", "nope") }).await,
        ),
        ("no request", Code::InvalidArgument, client.del_file(DelFileRequest { request: None }).await),
    ] {
        assert_code(answer, code, what);
    }
    let meta = client.get_file_meta(GetFileMetaRequest { request: file("files", "a") }).await;
    assert_eq!(meta.unwrap().into_inner().size, 2, "what was written and what was appended");
    let meta = client.get_file_meta(GetFileMetaRequest { request: file("files", "nope") }).await;
    assert_code(meta, Code::NotFound, "no file");
    let get =
        GetFileRequest { store_name: "files".to_owned(), name: "nope".to_owned(), metadata: BTreeMap::new() };
    assert_code(client.get_file(get).await.map(drop), Code::NotFound, "no file");
    let without = World::new(None).await;
    let meta = GetFileMetaRequest { request: file("files", "a") };
    let answer = crate::layotto::client(&without).get_file_meta(meta).await;
    assert_code(answer, Code::InvalidArgument, "no store at all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_come_and_go() {
    let world = world().await;
    let mut client = objects(&world);
    let (store_name, bucket) = ("files".to_owned(), "shop".to_owned());
    let put = |key: &str, content: &'static [u8]| {
        let first = PutObjectInput {
            store_name: "files".to_owned(),
            bucket: "shop".to_owned(),
            key: key.to_owned(),
            body: Bytes::from_static(&content[..2]),
            ..PutObjectInput::default()
        };
        let rest = PutObjectInput { body: Bytes::from_static(&content[2..]), ..PutObjectInput::default() };
        futures::stream::iter([first, rest])
    };
    let etag = client.put_object(put("dir/digits", b"0123456789")).await.unwrap().into_inner().etag;
    let get = |key: &str, start, end| GetObjectInput {
        store_name: "files".to_owned(),
        bucket: "shop".to_owned(),
        key: key.to_owned(),
        start,
        end,
        ..GetObjectInput::default()
    };
    for (start, end, expected, range) in
        [(0, 0, "0123456789", ""), (3, 5, "345", "bytes 3-5/10"), (8, 0, "89", "bytes 8-9/10")]
    {
        let messages: Vec<_> =
            client.get_object(get("dir/digits", start, end)).await.unwrap().into_inner().collect().await;
        let messages: Vec<_> = messages.into_iter().map(Result::unwrap).collect();
        let found: Vec<u8> = messages.iter().flat_map(|message| message.body.to_vec()).collect();
        assert_eq!((found, messages[0].content_range.as_str()), (expected.as_bytes().to_vec(), range));
        assert_eq!((messages[0].content_length as usize, &messages[0].etag), (expected.len(), &etag));
    }
    let copy = CopyObjectInput {
        store_name: store_name.clone(),
        bucket: bucket.clone(),
        key: "copy".to_owned(),
        copy_source: Some(CopySource {
            copy_source_bucket: bucket.clone(),
            copy_source_key: "dir/digits".to_owned(),
            ..CopySource::default()
        }),
        ..CopyObjectInput::default()
    };
    client.copy_object(copy).await.unwrap();
    let list = ListObjectsInput {
        store_name: store_name.clone(),
        bucket: bucket.clone(),
        delimiter: "/".to_owned(),
        ..ListObjectsInput::default()
    };
    let listed = client.list_objects(list).await.unwrap().into_inner();
    assert_eq!((listed.common_prefixes, listed.is_truncated), (vec!["dir/".to_owned()], false));
    assert_eq!((listed.contents[0].key.as_str(), listed.contents[0].size), ("copy", 10));
    let head = HeadObjectInput {
        store_name: store_name.clone(),
        bucket: bucket.clone(),
        key: "copy".to_owned(),
        ..HeadObjectInput::default()
    };
    assert_eq!(client.head_object(head).await.unwrap().into_inner().result_metadata["Content-Length"], "10");
    let objects = ["copy", "dir/digits", "never"]
        .map(|key| ObjectIdentifier { key: key.to_owned(), ..ObjectIdentifier::default() });
    let delete = DeleteObjectsInput {
        store_name: store_name.clone(),
        bucket: bucket.clone(),
        delete: Some(Delete { objects: objects.into(), quiet: false }),
        ..DeleteObjectsInput::default()
    };
    assert_eq!(client.delete_objects(delete).await.unwrap().into_inner().deleted.len(), 3);
    let exists =
        IsObjectExistInput { store_name, bucket, key: "copy".to_owned(), ..IsObjectExistInput::default() };
    assert!(!client.is_object_exist(exists).await.unwrap().into_inner().file_exist);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_come_in_parts_too() {
    let world = world().await;
    let mut client = objects(&world);
    let create = CreateMultipartUploadInput {
        store_name: "files".to_owned(),
        key: "joined".to_owned(),
        ..CreateMultipartUploadInput::default()
    };
    let upload_id = client.create_multipart_upload(create).await.unwrap().into_inner().upload_id;
    let mut parts = Vec::new();
    for (part_number, content) in [(1, "hello "), (2, "world")] {
        let part = UploadPartInput {
            store_name: "files".to_owned(),
            key: "joined".to_owned(),
            body: Bytes::from_static(content.as_bytes()),
            part_number,
            upload_id: upload_id.clone(),
            ..UploadPartInput::default()
        };
        let etag = client.upload_part(futures::stream::iter([part])).await.unwrap().into_inner().etag;
        parts.push(CompletedPart { etag, part_number });
    }
    let list = ListPartsInput {
        store_name: "files".to_owned(),
        key: "joined".to_owned(),
        upload_id: upload_id.clone(),
        max_parts: 1,
        ..ListPartsInput::default()
    };
    let listed = client.list_parts(list).await.unwrap().into_inner();
    assert_eq!(
        (listed.parts.len(), listed.is_truncated, listed.next_part_number_marker.as_str()),
        (1, true, "1")
    );
    let complete = CompleteMultipartUploadInput {
        store_name: "files".to_owned(),
        key: "joined".to_owned(),
        upload_id,
        multipart_upload: Some(CompletedMultipartUpload { parts }),
        ..CompleteMultipartUploadInput::default()
    };
    client.complete_multipart_upload(complete).await.unwrap();
    let exists = IsObjectExistInput {
        store_name: "files".to_owned(),
        key: "joined".to_owned(),
        ..IsObjectExistInput::default()
    };
    assert!(client.is_object_exist(exists).await.unwrap().into_inner().file_exist);
}

#[tokio::test]
async fn what_a_folder_cannot_do_is_named() {
    let world = world().await;
    let mut client = objects(&world);
    let store_name = "files".to_owned();
    let sign = SignUrlInput {
        store_name: store_name.clone(),
        key: "a".to_owned(),
        expired_in_sec: 60,
        ..SignUrlInput::default()
    };
    assert_code(client.sign_url(sign).await, Code::Unimplemented, "signed URLs");
    let tags = PutObjectTaggingInput {
        store_name: store_name.clone(),
        key: "a".to_owned(),
        ..PutObjectTaggingInput::default()
    };
    let answer = client.put_object_tagging(tags).await;
    let message = answer.as_ref().unwrap_err().message().to_owned();
    assert!(message.contains("tags") && message.contains("file.local"), "{message}");
    assert_code(answer, Code::Unimplemented, "tags");
    let head =
        HeadObjectInput { store_name: "nope".to_owned(), key: "a".to_owned(), ..HeadObjectInput::default() };
    assert_code(client.head_object(head.clone()).await, Code::InvalidArgument, "an unknown store");
    let without = World::new(None).await;
    assert_code(objects(&without).head_object(head).await, Code::FailedPrecondition, "no store at all");
}
