//! Watching names.

use ipc_core::client::{NameChange, NameEvent, NameWatch};

use crate::{echo_service, on_each_runtime};

async fn next_change(watch: &mut NameWatch) -> (String, NameChange) {
    match watch.next().await.unwrap().unwrap() {
        NameEvent::Changed { service, change, .. } => (service.as_str().to_owned(), change),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_seen_coming_and_going() {
    on_each_runtime(async |bus| {
        let (server, client) = (bus.client().await, bus.client().await);
        let present = server.serve(echo_service()).await.unwrap();
        let mut watch = client.watch_names("test.*").await.unwrap();
        let echo = |change| ("test.echo".to_owned(), change);
        assert_eq!(next_change(&mut watch).await, echo(NameChange::Acquired));
        present.close().await.unwrap();
        assert_eq!(next_change(&mut watch).await, echo(NameChange::Lost));
        let _one = server.serve(echo_service().group()).await.unwrap();
        let other = bus.client().await;
        let two = other.serve(echo_service().group()).await.unwrap();
        assert_eq!(next_change(&mut watch).await, echo(NameChange::Acquired));
        assert_eq!(next_change(&mut watch).await, echo(NameChange::InstanceAdded));
        drop(two);
        assert_eq!(next_change(&mut watch).await, echo(NameChange::InstanceRemoved));
        client.close().await;
        assert!(watch.next().await.is_none());
    });
}
