use lapin::options::QueueDeleteOptions;
use postrider_contract::{Client, Source};
use postrider_own_broker::{OwnBroker, Server};

use super::*;
use crate::layout::EXCHANGE;
use crate::line::open_channel;
use crate::link::Link;
use crate::options::Settings;

/// As after a message that cannot be parsed: every listener has a connection of its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_declared_once_on_each_connection() {
    let own = OwnBroker::start(Server::Rabbitmq);
    let url = format!("amqp://guest:guest@127.0.0.1:{}/postrider", own.port());
    let client = Client {
        application: "tests".into(),
        instance: "tests-1".into(),
    };
    let settings = Settings::read(&url.parse().unwrap(), client).unwrap();
    let links = [(); 2].map(|()| Link::new(settings.clone(), "test"));
    let lives = [links[0].first().await.unwrap(), links[1].first().await.unwrap()];
    let spec = Spec {
        listener: "listener".into(),
        source: Source::Topic("t".into()),
        group: "g".into(),
        sharing: Sharing::Group,
        order: Order::None,
        start: Start::New,
        in_flight: 1,
        dead_letter: None,
        max_delay: None,
        publishes: Vec::new(),
    };
    let topology = Topology::new(Layout::new(EXCHANGE));
    for live in &lives {
        topology.again(live, &spec, None, false).await.unwrap();
    }
    let channel = open_channel(&lives[0]).await.unwrap();
    let top = ladder::level(ladder::LEVELS - 1);
    let deleting = channel.queue_delete(top.as_str().into(), QueueDeleteOptions::default());
    deleting.await.unwrap();
    for live in &lives {
        topology.again(live, &spec, None, false).await.unwrap();
    }
    let mut declarer = Declarer::new(&lives[0], Mode::Verify);
    let found = declarer.look(&top).await.unwrap();
    assert!(found.is_none(), "the ladder was declared again");
}
