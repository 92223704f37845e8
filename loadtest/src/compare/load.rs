//! A shape of load.

use std::{fmt, str::FromStr};

use anyhow::Context;

use crate::{
    bounds::{self, CONNECTIONS, RATE, STREAMS, number, whole},
    drive::Pace,
};

/// `10x10`, `1000x1@20000`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    pub(super) connections: usize,
    /// Requests under way on each.
    pub(super) streams: usize,
    pub(super) pace: Pace,
}

impl FromStr for Load {
    type Err = anyhow::Error;

    fn from_str(shape: &str) -> anyhow::Result<Self> {
        let (size, rate) = shape.split_once('@').map_or((shape, None), |(size, rate)| (size, Some(rate)));
        let (connections, streams) = size
            .split_once('x')
            .context("write CONNECTIONSxREQUESTS, and @RATE behind it for a constant rate")?;
        let told = |what: &'static str| move |allowed: String| anyhow::anyhow!("as {what}, {allowed}");
        let connections = whole(CONNECTIONS)(connections).map_err(told("CONNECTIONS"))?;
        let streams = whole(STREAMS)(streams).map_err(told("REQUESTS"))?;
        let rate = rate.map(number(RATE)).transpose().map_err(told("RATE"))?;
        bounds::under_way(connections, streams)?;
        Ok(Self { connections, streams, pace: rate.map_or(Pace::Closed, Pace::Rate) })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.connections, self.streams)?;
        match self.pace {
            Pace::Closed => Ok(()),
            Pace::Rate(rate) => write!(f, "@{rate}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_connections_requests_and_perhaps_a_rate() {
        let load = |connections, streams, pace| Load { connections, streams, pace };
        for (text, read) in
            [("10x20", load(10, 20, Pace::Closed)), ("1000x1@2500", load(1_000, 1, Pace::Rate(2_500.0)))]
        {
            assert_eq!((text.parse::<Load>().unwrap(), read.to_string()), (read, text.to_owned()));
        }
    }

    #[test]
    fn a_shape_that_is_none_or_too_large_is_refused_with_what_is_allowed() {
        for (wrong, said) in [
            ("10", "write CONNECTIONSxREQUESTS"),
            ("0x1", "as CONNECTIONS, give a whole number from 1"),
            ("1x0", "as REQUESTS, give a whole number from 1"),
            ("1x1@1e300", "as RATE, give a number from 0.001"),
            ("10000x10000", "1000000 are the most"),
        ] {
            let told = wrong.parse::<Load>().unwrap_err().to_string();
            assert!(told.contains(said), "{wrong}: {told}");
        }
    }
}
