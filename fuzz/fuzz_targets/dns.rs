//! The DNS proxy under a sequence of questions, answers and silence.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use vmnet_core::gateway::dns::{Config, Guest, Output, Proxy, QueryId, Transport};

fuzz_target!(|data: &[u8]| {
    let gateway = [192, 168, 64, 1].into();
    let mut proxy: Proxy<u8> = Proxy::new(&Config {
        domain: "vmnet.internal".to_owned(),
        gateway: vec![gateway],
        subnets: vec![(gateway, 24)],
        asks_outside: data.len() % 8 != 7,
        seed: [3; 16],
    })
    .expect("a proxy");
    let mut now = Instant::now();
    proxy.set_resolvers(now, &["10.0.0.53:53".parse().unwrap(), "10.0.0.54:53".parse().unwrap()]);
    let _ = proxy.set_name("web", [192, 168, 64, 2].into());
    let (mut outputs, mut asked, mut forgotten, mut last) = (Vec::new(), 0u64, 0u64, Vec::new());
    let mut rest = data;
    while let [what, number, len, tail @ ..] = rest {
        let (message, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let query = QueryId::from(u64::from(*number));
        let transport = if number & 1 == 0 { Transport::Udp } else { Transport::Tcp };
        match what % 6 {
            0 | 1 => {
                let _ = proxy.query(now, Guest(u64::from(number % 5)), *number, transport, message, &mut outputs);
            }
            2 => proxy.answer(now, query, message, &mut outputs),
            3 => {
                // The right question and id, with anything behind it.
                let mut answer: Vec<u8> = last.clone();
                if let Some(flags) = answer.get_mut(2) {
                    *flags |= 0x80;
                }
                answer.extend(message);
                proxy.answer(now, QueryId::from(asked.saturating_sub(1)), &answer, &mut outputs);
            }
            4 => proxy.failed(now, query, &mut outputs),
            _ => {
                now += Duration::from_millis(u64::from(*number) * 50);
                proxy.timeout(now, &mut outputs);
                assert!(proxy.next_deadline().is_none_or(|at| at > now));
            }
        }
        for output in outputs.drain(..) {
            match output {
                Output::Ask { message, .. } => {
                    asked += 1;
                    last = message;
                }
                Output::Forget { .. } => forgotten += 1,
                Output::Reply { .. } => {}
            }
        }
    }
    for _ in 0..10_000 {
        let Some(next) = proxy.next_deadline() else { break };
        now = now.max(next);
        proxy.timeout(now, &mut outputs);
    }
    forgotten += outputs.iter().filter(|o| matches!(o, Output::Forget { .. })).count() as u64;
    asked += outputs.iter().filter(|o| matches!(o, Output::Ask { .. })).count() as u64;
    assert_eq!(asked, forgotten, "every query's socket is closed once");
});
