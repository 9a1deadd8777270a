//! `sock-client URL…`: gets each URL and prints status and body; with `post:TEXT` before a URL, posts the text.

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let client = reqwest::Client::new();
    let mut post = None;
    for argument in std::env::args().skip(1) {
        if let Some(text) = argument.strip_prefix("post:") {
            post = Some(text.to_owned());
            continue;
        }
        let request = match post.take() {
            Some(text) => client.post(&argument).body(text),
            None => client.get(&argument),
        };
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                println!("{status} {}", response.text().await.unwrap_or_else(|error| error.to_string()));
            }
            Err(error) => println!("failed {error:?}"),
        }
    }
}
