//! Weights to slots: the order in which `numgen inc` hands out new connections.

use std::net::Ipv4Addr;

/// No more slots than this for uneven weights; they are scaled down to fit. Equal weights take a slot each, however many.
const MAX_SLOTS: u64 = 1024;

/// Interleaves the backends by weight ("smooth weighted round robin", as nginx has it): of `n` successive slots each
/// backend holds its share, as far apart as can be. Backends of weight 0 hold none. For the same set of backends the
/// answer is the same, whatever their order.
pub(super) fn interleave(backends: impl IntoIterator<Item = (Ipv4Addr, u16)>) -> Vec<Ipv4Addr> {
    let mut shares: Vec<(Ipv4Addr, u64)> = backends
        .into_iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|(addr, weight)| (addr, weight.into()))
        .collect();
    shares.sort_unstable();
    reduce(&mut shares);
    let total: u64 = shares.iter().map(|(_, share)| share).sum();
    if total == shares.len() as u64 {
        return shares.into_iter().map(|(addr, _)| addr).collect();
    }
    let mut credit = vec![0; shares.len()];
    (0..total).map(|_| shares[take_turn(&shares, &mut credit, total.cast_signed())].0).collect()
}

/// Everyone gains their share; who has the most credit pays for a turn.
fn take_turn(shares: &[(Ipv4Addr, u64)], credit: &mut [i64], total: i64) -> usize {
    let mut richest = 0;
    for (index, (_, share)) in shares.iter().enumerate() {
        credit[index] += share.cast_signed();
        if credit[index] > credit[richest] {
            richest = index;
        }
    }
    credit[richest] -= total;
    richest
}

/// Divides by the greatest common divisor, then scales down to [`MAX_SLOTS`], leaving everyone one slot at least.
fn reduce(shares: &mut [(Ipv4Addr, u64)]) {
    let divisor = shares.iter().fold(0, |divisor, (_, share)| gcd(divisor, *share)).max(1);
    let total: u64 = shares.iter().map(|(_, share)| share / divisor).sum();
    let equal = total == shares.len() as u64;
    for (_, share) in shares.iter_mut() {
        *share /= divisor;
        if !equal && total > MAX_SLOTS {
            *share = (*share * MAX_SLOTS / total).max(1);
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn addr(n: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(n).expect("a small number"))
    }

    fn slots(weights: &[u16]) -> Vec<Ipv4Addr> {
        interleave(weights.iter().enumerate().map(|(n, weight)| (addr(n), *weight)))
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(slots(&[7, 7, 7]), [addr(0), addr(1), addr(2)]);
        assert_eq!(slots(&[1; 3000]).len(), 3000);
        assert!(slots(&[0, 0]).is_empty());
    }

    #[test]
    fn heavy_backends_are_spread_out() {
        let (a, b, c) = (addr(0), addr(1), addr(2));
        assert_eq!(slots(&[5, 1, 1]), [a, a, b, a, c, a, a]);
    }

    proptest! {
        #[test]
        fn every_backend_holds_its_share(weights in proptest::collection::vec(0u16..20, 1..12)) {
            let slots = slots(&weights);
            let mut held = BTreeMap::<_, u64>::new();
            for slot in &slots {
                *held.entry(*slot).or_default() += 1;
            }
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (n, weight) in weights.iter().enumerate() {
                let share = held.get(&addr(n)).copied().unwrap_or_default();
                prop_assert_eq!(share * total, u64::from(*weight) * slots.len() as u64);
            }
        }

        #[test]
        fn slots_are_bounded_and_leave_nobody_out(weights in proptest::collection::vec(1u16.., 1..40)) {
            let slots = slots(&weights);
            prop_assert!(slots.len() as u64 <= MAX_SLOTS + weights.len() as u64);
            for n in 0..weights.len() {
                prop_assert!(slots.contains(&addr(n)));
            }
        }

        #[test]
        fn the_order_of_the_backends_is_of_no_account(weights in proptest::collection::vec(0u16..9, 1..9)) {
            let reversed = weights.iter().enumerate().map(|(n, weight)| (addr(n), *weight)).rev();
            prop_assert_eq!(interleave(reversed), slots(&weights));
        }
    }
}
