//! A thousand listeners in one process, on the embedded broker: ten apps of a hundred.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postrider::prelude::{Bytes, State, listener, listeners};
use postrider::{App, Publisher, Registration};

const URL: &str = "memory://many";
const APPS: usize = 10;

macro_rules! hundred {
    ($($name:ident $topic:literal)*) => {
        $(
            #[listener(topic = $topic)]
            async fn $name(_payload: Bytes, State(seen): State<Arc<AtomicU64>>) {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        )*

        fn hundred() -> Vec<Registration> {
            listeners![$($name),*]
        }

        const TOPICS: &[&str] = &[$($topic),*];
    };
}

hundred! {
    l00 "many.00" l01 "many.01" l02 "many.02" l03 "many.03" l04 "many.04" l05 "many.05"
    l06 "many.06" l07 "many.07" l08 "many.08" l09 "many.09" l10 "many.10" l11 "many.11"
    l12 "many.12" l13 "many.13" l14 "many.14" l15 "many.15" l16 "many.16" l17 "many.17"
    l18 "many.18" l19 "many.19" l20 "many.20" l21 "many.21" l22 "many.22" l23 "many.23"
    l24 "many.24" l25 "many.25" l26 "many.26" l27 "many.27" l28 "many.28" l29 "many.29"
    l30 "many.30" l31 "many.31" l32 "many.32" l33 "many.33" l34 "many.34" l35 "many.35"
    l36 "many.36" l37 "many.37" l38 "many.38" l39 "many.39" l40 "many.40" l41 "many.41"
    l42 "many.42" l43 "many.43" l44 "many.44" l45 "many.45" l46 "many.46" l47 "many.47"
    l48 "many.48" l49 "many.49" l50 "many.50" l51 "many.51" l52 "many.52" l53 "many.53"
    l54 "many.54" l55 "many.55" l56 "many.56" l57 "many.57" l58 "many.58" l59 "many.59"
    l60 "many.60" l61 "many.61" l62 "many.62" l63 "many.63" l64 "many.64" l65 "many.65"
    l66 "many.66" l67 "many.67" l68 "many.68" l69 "many.69" l70 "many.70" l71 "many.71"
    l72 "many.72" l73 "many.73" l74 "many.74" l75 "many.75" l76 "many.76" l77 "many.77"
    l78 "many.78" l79 "many.79" l80 "many.80" l81 "many.81" l82 "many.82" l83 "many.83"
    l84 "many.84" l85 "many.85" l86 "many.86" l87 "many.87" l88 "many.88" l89 "many.89"
    l90 "many.90" l91 "many.91" l92 "many.92" l93 "many.93" l94 "many.94" l95 "many.95"
    l96 "many.96" l97 "many.97" l98 "many.98" l99 "many.99"
}

/// Prints a table: start-up time and memory as listeners are added, each proven by a message that it handles.
pub(crate) async fn many() {
    println!("| listeners in the process | started in | resident memory for each |");
    println!("|---:|---:|---:|");
    let seen = Arc::new(AtomicU64::new(0));
    let (empty, begun) = (resident(), Instant::now());
    let (mut running, mut published) = (Vec::new(), 0);
    for number in 0..APPS {
        let app = App::new(URL)
            .unwrap()
            .name(format!("app-{number}"))
            .state(seen.clone());
        let started = app.listen(hundred()).start().await.unwrap();
        started.ready().await.unwrap();
        running.push(started);
        let listeners = running.len() * 100;
        if ![100, 500, 1000].contains(&listeners) {
            continue;
        }
        let took = begun.elapsed();
        let each = resident().saturating_sub(empty) as f64 / listeners as f64;
        published += listeners as u64;
        let publisher: Publisher = running[0].publisher();
        for &topic in TOPICS {
            publisher.topic(topic).send_bytes("x").await.unwrap();
        }
        while seen.load(Ordering::Relaxed) < published {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!("| {listeners} | {} ms | {each:.0} KiB |", took.as_millis());
        eprintln!("{listeners} listeners: {took:?}, {each:.0} KiB each");
    }
    for one in running {
        one.shutdown().await.unwrap();
    }
}

/// Kilobytes, as Linux tells; 0 elsewhere.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
