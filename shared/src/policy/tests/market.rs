//! Pods that are placed by a market, on nodes with policies and reserves.

use crate::host::Host;
use crate::pack::{Market, Stands};
use crate::share::ShareSize;

use super::*;

/// Whole, or in ten shares of any size.
fn elastic(index: u32) -> GpuState {
    let whole = offer(ResourceName::gpu(), Part::Whole, None);
    offering(index, "M", 10, vec![whole, offer(ResourceName::gpu().shared(), Part::Whole, Some(10))])
}

fn share(milli: u32) -> Want {
    let shares = Demand::from([(ResourceName::gpu().shared(), 1)]);
    let host = Host { cpu_milli: 1000, memory_mib: 1000 };
    Want { host, ..Demand { share: Some(ShareSize::Milli(milli)), ..shares }.into() }
}

/// What to expect of a cluster whose pods are of these shares, without and with a market.
fn mixes(shares: &[u32]) -> (Mix, Mix) {
    let gpu = elastic(0);
    let stands = Arc::new(Stands::new([&gpu.gpu.kind; 10]));
    let seen = shares.iter().filter_map(|&milli| Some((share(milli).shape(&stands)?, 1000)));
    let mix = Mix::prior([&*gpu.gpu]);
    (mix.clone(), mix.with(Arc::new(Market::new(stands.clone(), seen.collect::<Vec<_>>()))))
}

fn node(shares: &[&[u32]], reserve: Reserve) -> Occupied {
    let gpu = |(index, shares): (u32, &&[u32])| {
        let mut gpu = elastic(index);
        shares.iter().for_each(|&milli| gpu.take(1, Some(ShareSize::Milli(milli))));
        gpu
    };
    let host = Host { cpu_milli: 96_000, memory_mib: 96_000 };
    Occupied { gpus: (0..).zip(shares).map(gpu).collect(), reserve, host, ..Occupied::default() }
}

fn gpu_of(node: &Occupied, milli: u32, mix: &Mix) -> usize {
    let placement = node.place(&share(milli), "mine", mix).unwrap();
    placement.devices.values().flatten().next().unwrap().gpu
}

#[test]
fn a_share_goes_to_the_gpu_that_costs_least_unless_that_is_kept() {
    let (without, with) = mixes(&[300, 700]);
    let open = node(&[&[300], &[]], Reserve::None);
    assert_eq!((gpu_of(&open, 300, &without), gpu_of(&open, 300, &with)), (0, 1));
    let kept = node(&[&[300], &[]], Reserve::Gpus(1));
    assert_eq!(gpu_of(&kept, 300, &with), 0);
}

#[test]
fn a_pod_takes_its_cpu_and_memory_from_the_node() {
    let mut node = node(&[&[]], Reserve::None);
    node.take(&share(300), "mine", &mixes(&[300]).1).unwrap();
    assert_eq!(node.host, Host { cpu_milli: 95_000, memory_mib: 95_000 });
}

proptest! {
    #[test]
    fn whether_a_pod_fits_and_what_it_takes_of_the_names_is_not_the_markets_to_say(
        used in prop::collection::vec(prop::collection::vec(100_u32..500, 0..3), 1..5),
        milli in 1_u32..1000,
        keeps in 0_usize..3,
        spread in any::<bool>(),
    ) {
        let used: Vec<&[u32]> = used.iter().map(Vec::as_slice).filter(|of| of.iter().sum::<u32>() <= 1000).collect();
        let reserve = if keeps == 0 { Reserve::None } else { Reserve::Gpus(keeps) };
        let (node, (without, with)) = (node(&used, reserve), mixes(&[200, 460, 700]));
        let annotations: &[_] = if spread { &[("stowage.dev/placement", "spread")] } else { &[] };
        let want = Want { policy: policy(annotations), ..share(milli) };
        let [before, after] = [&without, &with].map(|mix| node.place(&want, "mine", mix));
        prop_assert_eq!(before.as_ref().map(|it| it.cost), after.as_ref().map(|it| it.cost));
        prop_assert_eq!(node.rank(&want, "mine", &without), node.rank(&want, "mine", &with));
        if let Ok(placement) = after {
            let chosen = placement.devices.values().flatten().next().unwrap();
            prop_assert!(node.gpus[chosen.gpu].room_for(chosen.offer, want.demand.share) > 0);
        }
    }
}
