//! Ids of dead letters as somebody may write them.

mod common;

use postrider_contract::{Bytes, ErrorKind, Verdict};
use postrider_memory::Memory;

use common::{at_once, client, open, settle, spec, to};

#[tokio::test(start_paused = true)]
async fn what_is_no_id_is_refused_and_not_the_beginning() {
    let broker = Memory::default().connect(client());
    let mut spec = spec("t", "g");
    spec.dead_letter = Some("t.g.dlq".into());
    let mut sub = open(&broker, spec).await;
    broker.publish(vec![to("t", "1")]).await.remove(0).unwrap();
    let delivery = at_once(&mut *sub.receiver).await.remove(0);
    let emit = vec![to("t.g.dlq", "1")];
    settle(&sub.settler, &delivery, Verdict::Ack { emit }).await;

    let mut letters = broker.dead_letters("t.g.dlq", "t", "g");
    let found = letters.browse(None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    for garbage in ["", "garbage", "-1", "18446744073709551616"] {
        let ids = [Bytes::from(garbage)];
        let kinds = [
            letters.browse(Some(&ids[0]), 10).await.map(drop),
            letters.replay(&ids).await.remove(0),
            letters.purge(&ids).await.remove(0),
        ]
        .map(|answer| answer.map_err(|error| error.kind()));
        assert_eq!(kinds, [Err(ErrorKind::Rejected); 3], "{garbage:?}");
    }
    let last = Bytes::from(u64::MAX.to_string());
    assert!(letters.browse(Some(&last), 10).await.unwrap().is_empty());
    letters.purge(&[last]).await.remove(0).unwrap();
    assert_eq!(letters.browse(None, 10).await.unwrap()[0].id, found[0].id);
}
