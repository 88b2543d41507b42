//! The service `demo.title`: its method `title` answers a text in title case, and every title is an event, too.
//!
//! `cargo run --example demo_title`, and in another terminal `ipc-cli call demo.title title "hello world"`.

use ipc_core::service::{Request, Service};
use ipc_core::{Backoff, Client, ConnectOptions, Error, ServiceError};
use unicode_segmentation::UnicodeSegmentation;
use unicode_titlecase::TitleCase;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let options = ConnectOptions::new().name("demo_title").reconnect(Backoff::default());
    let client = Client::connect(options).await?;
    let topic = client.topic("demo.title.made");
    let title = move |request: Request| {
        let topic = topic.clone();
        async move {
            let title = title_case(request.payload.as_text()?);
            topic.publish_oneway(title.as_str()).await?;
            Ok::<_, ServiceError>(title)
        }
    };
    let service = Service::new("demo.title")?.method("title", title).describe("a text in title case");
    let serving = client.serve(service).await?;
    eprintln!("serving demo.title");
    Err(serving.closed().await)
}

/// The first letter of each word in title case, which for ǆ is ǅ and not Ǆ, and the others in lower case.
///
/// Words are those of Unicode (UAX #29): "don't" is one, "e-mail" is two, and a script without cases stays as it is.
fn title_case(text: &str) -> String {
    text.split_word_bounds().map(title_case_word).collect()
}

fn title_case_word(word: &str) -> String {
    let Some(first) = word.find(char::is_alphabetic) else { return word.to_owned() };
    let (before, letters) = word.split_at(first);
    // All letters together, because how a final sigma is written depends on those before it.
    let lower = letters.to_lowercase();
    let initial = letters.chars().next().unwrap_or_default();
    let initial_bytes: usize = initial.to_lowercase().map(char::len_utf8).sum();
    format!("{before}{}{}", initial.to_titlecase(), &lower[initial_bytes..])
}
