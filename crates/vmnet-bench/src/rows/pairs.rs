//! Two guests of one network.

use super::Better::{Higher, Lower};
use super::Experiment::Pair;
use super::{RATE, Row, TIME, row};
use crate::pair;

pub(super) static ROWS: [Row; 4] = [
    row(
        "pair_tcp_1",
        "Guest to guest, TCP, 1 stream",
        RATE,
        Higher,
        Pair(pair::Part::Tcp {
            streams: 1,
            mixed: false,
        }),
    ),
    row(
        "pair_tcp_mixed",
        "  beside one without offload",
        RATE,
        Higher,
        Pair(pair::Part::Tcp {
            streams: 1,
            mixed: true,
        }),
    ),
    row(
        "pair_tcp_8",
        "Guest to guest, TCP, 8 streams",
        RATE,
        Higher,
        Pair(pair::Part::Tcp {
            streams: 8,
            mixed: false,
        }),
    ),
    row(
        "pair_rr_p50",
        "Guest to guest, round trip, p50",
        TIME,
        Lower,
        Pair(pair::Part::RequestResponse),
    ),
];
