//! Which traces are recorded.

/// Decides by the caller's word, or by the trace's id: whoever goes by the same part decides alike for the same trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    parent_based: bool,
    /// Ids are recorded whose lower half is below this, without its last bit.
    below: u64,
}

/// One more than the lower half of an id can be without its last bit.
const ALL: u64 = 1 << 63;

impl Sampler {
    /// This part of the traces, from 0 to 1, whatever their callers say.
    pub fn ratio(part: f64) -> Self {
        // Saturates; what is no number is none.
        Self { parent_based: false, below: (part.clamp(0.0, 1.0) * ALL as f64) as u64 }
    }

    /// What the caller records, and this part of the traces that begin here.
    pub fn parent_based(part: f64) -> Self {
        Self { parent_based: true, ..Self::ratio(part) }
    }

    /// Whether a trace is recorded. `caller`: whether its caller does, if it has one.
    pub(crate) fn takes(self, caller: Option<bool>, trace_id: u64) -> bool {
        match caller {
            Some(sampled) if self.parent_based => sampled,
            _ => trace_id >> 1 < self.below,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_decides_where_it_is_asked() {
        for (sampler, caller, taken) in [
            (Sampler::parent_based(0.0), Some(true), true),
            (Sampler::parent_based(1.0), Some(false), false),
            (Sampler::parent_based(1.0), None, true),
            (Sampler::parent_based(0.0), None, false),
            (Sampler::ratio(1.0), Some(false), true),
            (Sampler::ratio(0.0), Some(true), false),
            (Sampler::ratio(f64::NAN), None, false),
        ] {
            for trace_id in [0, 1, u64::MAX / 2, u64::MAX] {
                assert_eq!(sampler.takes(caller, trace_id), taken, "{sampler:?} {caller:?} {trace_id}");
            }
        }
    }

    #[test]
    fn a_part_of_all_ids_is_taken_and_the_lowest_of_them() {
        let hundredth = Sampler::ratio(0.01);
        let taken =
            (0..10_000_u64).filter(|n| hundredth.takes(None, (n * 2 + 1) * (u64::MAX / 20_000))).count();
        assert_eq!(taken, 100);
        assert!(hundredth.takes(None, 0) && !hundredth.takes(None, u64::MAX));
    }
}
