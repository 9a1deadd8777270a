//! What objects have beside contents in Layotto's API: over buckets of S3 (moto), seen by another client (boto3), and
//! over a folder.

use crate::layotto::assert_code;
use crate::support::{RESOURCES, Wire, World, origin};
use bytes::Bytes;
use dhow_api::proto::layotto::s3::object_storage_service_client::ObjectStorageServiceClient;
use dhow_api::proto::layotto::s3::*;
use dhow_servers::{MOTO_KEYS, Process, moto, python_with_boto3};
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::process::Command;
use tonic::Code;

const STORE: &str = "objects";

const BUCKET: &str = "shop";

/// A bucket that keeps versions, in a store that is Layotto's by its type.
struct Shop {
    server: Process,
    world: World,
}

impl Shop {
    async fn open() -> Shop {
        let server = moto().unwrap();
        let (key, secret) = MOTO_KEYS;
        let component = format!(
            "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: {STORE} }}\nspec:\n  \
             type: oss.aws.oss\n  version: v1\n  metadata:\n    \
             - {{ name: endpoint, value: 'http://{}' }}\n    - {{ name: accessKeyID, value: {key} }}\n    \
             - {{ name: accessKeySecret, value: {secret} }}\n",
            server.address()
        );
        let resources = format!("{RESOURCES}\n{component}");
        let shop = Shop { server, world: World::with(&resources, tempfile::tempdir().unwrap(), None).await };
        shop.boto3(
            "s3.create_bucket(Bucket='shop'); \
             s3.put_bucket_versioning(Bucket='shop', VersioningConfiguration={'Status': 'Enabled'})",
        );
        shop
    }

    fn client(&self) -> ObjectStorageServiceClient<Wire> {
        ObjectStorageServiceClient::with_origin(Wire::default(), origin(self.world.address))
    }

    /// What a program in Python with boto3's client `s3` prints.
    fn boto3(&self, program: &str) -> String {
        let (key, secret) = MOTO_KEYS;
        let head = format!(
            "import boto3\ns3 = boto3.client('s3', endpoint_url='http://{}', region_name='us-east-1', \
             aws_access_key_id='{key}', aws_secret_access_key='{secret}')\n",
            self.server.address()
        );
        let output =
            Command::new(python_with_boto3().unwrap()).arg("-c").arg(head + program).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// The one message of an object.
fn put(key: &str, content: &'static str) -> PutObjectInput {
    PutObjectInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        body: Bytes::from_static(content.as_bytes()),
        ..PutObjectInput::default()
    }
}

fn one<T>(message: T) -> futures::stream::Iter<std::array::IntoIter<T, 1>> {
    futures::stream::iter([message])
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// One server for all of it: starting takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_s3_have_more_than_contents() {
    let shop = &Shop::open().await;
    tags(shop).await;
    access_lists(shop).await;
    versions(shop).await;
    archives(shop).await;
    uploads(shop).await;
    appending(shop).await;
}

async fn tags(shop: &Shop) {
    let mut client = shop.client();
    let tagging = pairs(&[("team", "blue and green"), ("a=b", "x y+z")]);
    client.put_object(one(PutObjectInput { tagging: tagging.clone(), ..put("a", "1") })).await.unwrap();
    let get = |key: &str| GetObjectTaggingInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        ..GetObjectTaggingInput::default()
    };
    assert_eq!(client.get_object_tagging(get("a")).await.unwrap().into_inner().tags, tagging);
    let set = |tags: &[(&str, &str)]| PutObjectTaggingInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "a".to_owned(),
        tags: pairs(tags),
        ..PutObjectTaggingInput::default()
    };
    client.put_object_tagging(set(&[("the team", "red+blue=/:@._-")])).await.unwrap();
    let seen = shop.boto3("print(s3.get_object_tagging(Bucket='shop', Key='a')['TagSet'])");
    assert_eq!(seen, "[{'Key': 'the team', 'Value': 'red+blue=/:@._-'}]");
    let delete = DeleteObjectTaggingInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "a".to_owned(),
        ..DeleteObjectTaggingInput::default()
    };
    client.delete_object_tagging(delete).await.unwrap();
    assert_eq!(client.get_object_tagging(get("a")).await.unwrap().into_inner().tags, BTreeMap::new());
    assert_code(client.get_object_tagging(get("nope")).await, Code::NotFound, "tags of nothing");
}

async fn access_lists(shop: &Shop) {
    let mut client = shop.client();
    client.put_object(one(PutObjectInput { acl: "public-read".to_owned(), ..put("a", "1") })).await.unwrap();
    let get = GetObjectCannedAclInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "a".to_owned(),
        ..GetObjectCannedAclInput::default()
    };
    let found = client.get_object_canned_acl(get.clone()).await.unwrap().into_inner();
    assert_eq!(found.canned_acl, "public-read");
    assert!(found.owner.is_some_and(|owner| !owner.id.is_empty()));
    let set = |acl: &str| PutObjectCannedAclInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "a".to_owned(),
        acl: acl.to_owned(),
        ..PutObjectCannedAclInput::default()
    };
    client.put_object_canned_acl(set("authenticated-read")).await.unwrap();
    let seen = shop.boto3(
        "print([grant['Grantee'].get('URI') for grant in s3.get_object_acl(Bucket='shop', Key='a')['Grants']])",
    );
    assert!(seen.contains("AuthenticatedUsers") && !seen.contains("AllUsers"), "{seen}");
    client.put_object_canned_acl(set("private")).await.unwrap();
    assert_eq!(client.get_object_canned_acl(get).await.unwrap().into_inner().canned_acl, "private");
    let answer = client.put_object_canned_acl(set("Every Body")).await;
    assert_code(answer, Code::InvalidArgument, "no word of S3");
}

async fn versions(shop: &Shop) {
    let mut client = shop.client();
    for content in ["one", "two"] {
        client.put_object(one(put("dir/a", content))).await.unwrap();
    }
    client.put_object(one(put("dir/b", "b"))).await.unwrap();
    let delete = DeleteObjectInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "dir/b".to_owned(),
        ..DeleteObjectInput::default()
    };
    client.delete_object(delete.clone()).await.unwrap();
    let list = ListObjectVersionsInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: "dir/".to_owned(),
        ..ListObjectVersionsInput::default()
    };
    let all = client.list_object_versions(list.clone()).await.unwrap().into_inner();
    let of_a: Vec<&ObjectVersion> = all.versions.iter().filter(|version| version.key == "dir/a").collect();
    let [new, old] = of_a[..] else { panic!("{all:?}") };
    assert!(new.is_latest && !old.is_latest && new.size == 3 && new.version_id != old.version_id);
    assert!(new.last_modified > 1_700_000_000 && !new.etag.is_empty() && new.owner.is_some(), "{new:?}");
    let [deletion] = &all.delete_markers[..] else { panic!("{all:?}") };
    assert!(deletion.is_latest && deletion.key == "dir/b", "{deletion:?}");

    let get = |version_id: &str| GetObjectInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "dir/a".to_owned(),
        version_id: version_id.to_owned(),
        ..GetObjectInput::default()
    };
    for (version_id, expected, content) in
        [("", &new.version_id, "two"), (&old.version_id, &old.version_id, "one")]
    {
        let messages: Vec<_> = client.get_object(get(version_id)).await.unwrap().into_inner().collect().await;
        let message = messages.into_iter().next().unwrap().unwrap();
        assert_eq!((&message.body[..], &message.version_id), (content.as_bytes(), expected));
    }
    // Page by page; how many stand on one differs between servers.
    let (mut paged, mut next) = (0, ListObjectVersionsInput { max_keys: 1, ..list });
    loop {
        let page = client.list_object_versions(next.clone()).await.unwrap().into_inner();
        paged += page.versions.len() + page.delete_markers.len();
        assert!(paged <= 4, "{page:?}");
        if !page.is_truncated {
            break;
        }
        next.key_marker = page.next_key_marker;
        next.version_id_marker = page.next_version_id_marker;
    }
    assert_eq!(paged, 4);

    let copy = CopyObjectInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "copy".to_owned(),
        copy_source: Some(CopySource {
            copy_source_bucket: BUCKET.to_owned(),
            copy_source_key: "dir/a".to_owned(),
            copy_source_version_id: old.version_id.clone(),
        }),
        ..CopyObjectInput::default()
    };
    client.copy_object(copy).await.unwrap();
    assert_eq!(shop.boto3("print(s3.get_object(Bucket='shop', Key='copy')['Body'].read())"), "b'one'");
    // Without its deletion the object is there again.
    client
        .delete_object(DeleteObjectInput { version_id: deletion.version_id.clone(), ..delete })
        .await
        .unwrap();
    assert_eq!(shop.boto3("print(s3.get_object(Bucket='shop', Key='dir/b')['Body'].read())"), "b'b'");
    let head = HeadObjectInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "dir/a".to_owned(),
        version_id: old.version_id.clone(),
        ..HeadObjectInput::default()
    };
    let head = client.head_object(head).await.unwrap().into_inner().result_metadata;
    assert_eq!(head["X-Amz-Version-Id"], old.version_id);
}

async fn archives(shop: &Shop) {
    let mut client = shop.client();
    client
        .put_object(one(PutObjectInput { storage_class: "GLACIER".to_owned(), ..put("old", "1") }))
        .await
        .unwrap();
    client.put_object(one(put("new", "1"))).await.unwrap();
    let restore = |key: &str, days| RestoreObjectInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        restore_request: Some(RestoreRequest {
            days,
            glacier_job_parameters: Some(GlacierJobParameters { tier: "Expedited".to_owned() }),
            ..RestoreRequest::default()
        }),
        ..RestoreObjectInput::default()
    };
    client.restore_object(restore("old", 3)).await.unwrap();
    let seen = shop.boto3("print(s3.head_object(Bucket='shop', Key='old')['Restore'])");
    assert!(seen.contains("ongoing-request"), "{seen}");
    let answer = client.restore_object(restore("new", 3)).await;
    assert!(answer.as_ref().unwrap_err().message().contains("InvalidObjectState"), "{answer:?}");
    assert_code(answer, Code::PermissionDenied, "what is not archived");
    assert_code(client.restore_object(restore("old", 0)).await, Code::InvalidArgument, "no days");
    let mut query = restore("old", 3);
    query.restore_request.as_mut().unwrap().select_parameters = Some(SelectParameters::default());
    assert_code(client.restore_object(query).await, Code::Unimplemented, "a query");
}

async fn uploads(shop: &Shop) {
    let mut client = shop.client();
    for key in ["dir/a", "dir/b", "other"] {
        let create = CreateMultipartUploadInput {
            store_name: STORE.to_owned(),
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            ..CreateMultipartUploadInput::default()
        };
        client.create_multipart_upload(create).await.unwrap();
    }
    let list = ListMultipartUploadsInput {
        store_name: STORE.to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: "dir/".to_owned(),
        ..ListMultipartUploadsInput::default()
    };
    let found = client.list_multipart_uploads(list).await.unwrap().into_inner();
    let keys: Vec<&str> = found.uploads.iter().map(|upload| upload.key.as_str()).collect();
    assert_eq!((keys, found.is_truncated), (vec!["dir/a", "dir/b"], false));
    assert!(
        found.uploads.iter().all(|upload| upload.initiated > 1_200_000_000 && !upload.upload_id.is_empty())
    );
}

fn append(store: &str, position: i64, content: &'static str) -> AppendObjectInput {
    AppendObjectInput {
        store_name: store.to_owned(),
        bucket: BUCKET.to_owned(),
        key: "log".to_owned(),
        body: Bytes::from_static(content.as_bytes()),
        position,
        ..AppendObjectInput::default()
    }
}

async fn appending(shop: &Shop) {
    let answer = shop.client().append_object(one(append(STORE, 0, "x"))).await;
    let message = answer.as_ref().unwrap_err().message().to_owned();
    assert!(message.contains("appending") && message.contains("oss.aws.oss"), "{message}");
    assert_code(answer, Code::Unimplemented, "appending");
}

#[tokio::test]
async fn files_grow_at_their_end() {
    let files = "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: files }\n\
                 spec: { type: blob.local, version: v1, metadata: [] }\n";
    let world = World::with(&format!("{RESOURCES}\n{files}"), tempfile::tempdir().unwrap(), None).await;
    let mut client = ObjectStorageServiceClient::<Wire>::with_origin(Wire::default(), origin(world.address));
    for (position, content, end) in [(0, "hello", 5), (5, " world", 11)] {
        let answer = client.append_object(one(append("files", position, content))).await.unwrap();
        assert_eq!(answer.into_inner().append_position, end);
    }
    for position in [4, 12, -1] {
        let answer = client.append_object(one(append("files", position, "x"))).await;
        assert_code(answer, Code::InvalidArgument, &format!("position {position}"));
    }
    let tagged = AppendObjectInput { tags: pairs(&[("a", "b")]), ..append("files", 11, "x") };
    assert_code(client.append_object(one(tagged)).await, Code::Unimplemented, "tags of files");
    let content = std::fs::read_to_string(world.folder.path().join("files/files/shop/log"));
    assert_eq!(content.unwrap(), "hello world");
}
