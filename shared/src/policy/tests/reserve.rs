//! Whole GPUs that a node keeps for large pods.

use super::*;
use crate::mig::MigSlice;

const SHARED: fn() -> ResourceName = || ResourceName::gpu().shared();

/// What GPUs of the tests are offered as.
#[derive(Debug, Clone, Copy)]
enum Form {
    Whole,
    Shares,
    WholeOrShares,
    WholeOrSlices,
}

const FORMS: [Form; 4] = [Form::Whole, Form::Shares, Form::WholeOrShares, Form::WholeOrSlices];

fn slices() -> ResourceName {
    ResourceName::mig(&"3g.20gb".parse().unwrap())
}

fn of_form(index: usize, form: Form) -> GpuState {
    let whole = || offer(ResourceName::gpu(), Part::Whole, None);
    let shares = || offer(SHARED(), Part::Whole, Some(4));
    let slice = |start| {
        let slice = MigSlice { profile: "3g.20gb".parse().unwrap(), start, size: 4, media_engines: false };
        offer(slices(), Part::Slice(slice), None)
    };
    let offers = match form {
        Form::Whole => vec![whole()],
        Form::Shares => vec![shares()],
        Form::WholeOrShares => vec![whole(), shares()],
        Form::WholeOrSlices => vec![whole(), slice(0), slice(4)],
    };
    offering(u32::try_from(index).unwrap(), "M", 40, offers)
}

fn node(forms: &[Form], label: Option<&str>) -> Occupied {
    let gpus = forms.iter().enumerate().map(|(index, form)| of_form(index, *form)).collect();
    Occupied { gpus, reserve: Reserve::of(label), ..Occupied::default() }
}

fn mix(node: &Occupied) -> Mix {
    Mix::prior(node.gpus.iter().map(|gpu| &*gpu.gpu))
}

fn ask(resource: ResourceName, count: u32) -> Want {
    Want::from(Demand::from([(resource, count)]))
}

/// What the node says to these pods, one beside the other; nothing where it takes them.
fn say(node: &mut Occupied, wants: &[Want]) -> Vec<Option<WhyNot>> {
    let mix = mix(node);
    let one = |want: &Want| match node.place(want, "n", &mix) {
        Err(why) => Some(why),
        Ok(placement) => {
            node.settle(&placement, want, "n");
            None
        }
    };
    wants.iter().map(one).collect()
}

#[test]
fn a_label_is_a_number_of_gpus_or_keeps_everybody_off() {
    use Reserve::{Gpus, None as Nothing, Unreadable};
    let long = "9".repeat(63);
    for (label, want) in [
        (None, Nothing),
        (Some("0"), Nothing),
        (Some("4"), Gpus(4)),
        (Some("64"), Gpus(64)),
        (Some("65"), Unreadable),
        (Some(""), Unreadable),
        (Some("-1"), Unreadable),
        (Some("four"), Unreadable),
        (Some("4.0"), Unreadable),
        (Some("\u{664}"), Unreadable),
        (Some(&long), Unreadable),
    ] {
        assert_eq!(Reserve::of(label), want, "{label:?}");
    }
    let why = WhyNot::from(NotAllowed::ReserveUnreadable);
    assert_eq!(why.to_string(), "node label stowage.dev/reserve-whole-gpus is no number from 0 to 64");
    assert!(why.is_permanent() && !NotAllowed::Reserved.is_permanent());
    let mut unreadable = node(&FORMS, Some("four"));
    assert_eq!(say(&mut unreadable, &[ask(ResourceName::gpu(), 3)]), [Some(why)]);
}

#[test]
fn a_pod_that_asks_for_as_many_gets_what_is_kept_and_others_go_beside_it() {
    let whole = |count| ask(ResourceName::gpu(), count);
    let reserved = Some(WhyNot::from(NotAllowed::Reserved));
    let mut of_four = node(&[Form::WholeOrShares; 4], Some("2"));
    // Of two GPUs there are eight shares.
    let small = [ask(SHARED(), 9), whole(1), ask(SHARED(), 4), whole(1), ask(SHARED(), 1)];
    let said = [reserved.clone(), None, None, reserved.clone(), reserved];
    assert_eq!(say(&mut of_four, &small), said);
    assert_eq!(say(&mut of_four, &[whole(2)]), [None]);
    let full = say(&mut of_four, &[whole(1)]);
    assert!(matches!(full[..], [Some(WhyNot::NoFit(_))]), "what is full says so: {full:?}");
    // Who asks for more than are kept needs no more than anybody.
    assert_eq!(say(&mut node(&[Form::WholeOrShares; 4], Some("2")), &[whole(4)]), [None]);
}

#[test]
fn what_is_in_use_already_stays_and_what_is_begun_is_filled_up() {
    let mut late = node(&[Form::WholeOrShares; 2], None);
    assert_eq!(say(&mut late, &[ask(SHARED(), 1), ask(ResourceName::gpu(), 1)]), [None, None]);
    late.reserve = Reserve::Gpus(2);
    assert_eq!(say(&mut late, &[ask(SHARED(), 3)]), [None], "nothing idle is touched");
}

#[test]
fn those_are_kept_that_the_pod_has_no_use_for() {
    let forms = [Form::WholeOrShares, Form::WholeOrShares, Form::Whole, Form::Whole];
    assert_eq!(say(&mut node(&forms, Some("2")), &[ask(SHARED(), 8)]), [None]);
    // Four slices are on two GPUs; the others are kept.
    let forms = [Form::WholeOrSlices, Form::WholeOrShares, Form::WholeOrSlices, Form::WholeOrShares];
    assert_eq!(say(&mut node(&forms, Some("2")), &[ask(slices(), 4)]), [None]);
}

#[test]
fn a_gpu_that_a_large_pod_could_not_have_is_not_counted_as_kept() {
    let mut sick = node(&[Form::WholeOrShares; 2], Some("1"));
    let gpu = Arc::make_mut(&mut sick.gpus[0].gpu);
    gpu.unhealthy = Some("XID 79".into());
    assert_eq!(say(&mut sick, &[ask(SHARED(), 1)]), [Some(NotAllowed::Reserved.into())]);
    // Nobody could have one whole here, so there is nothing to keep.
    assert_eq!(say(&mut node(&[Form::Shares], Some("1")), &[ask(SHARED(), 4)]), [None]);
}

/// Dumber code: by what is in use of each offer, is any GPU promised twice?
fn is_overcommitted(state: &GpuState) -> bool {
    let offers = state.gpu.kind.offers();
    let used: Vec<(&Offer, u32)> = offers
        .iter()
        .enumerate()
        .map(|(at, of)| (of, state.occupancy.in_use(at)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let too_many = used.iter().any(|(of, n)| *n > of.replicas.unwrap_or(1));
    let whole = |of: &Offer| of.part == Part::Whole;
    too_many || (used.len() > 1 && used.iter().any(|(of, _)| whole(of)))
}

fn idle_whole(node: &Occupied) -> Vec<usize> {
    let whole = |of: &Offer| of.part == Part::Whole && of.replicas.is_none();
    let is = |state: &GpuState| state.occupancy.is_idle() && state.gpu.kind.offers().iter().any(whole);
    (0..node.gpus.len()).filter(|&gpu| is(&node.gpus[gpu])).collect()
}

/// Whether there are so many idle GPUs beside which the pod fits, whichever they are.
fn fits_beside_some(node: &Occupied, want: &Want, leave: usize, mix: &Mix) -> bool {
    let idle = idle_whole(node);
    let leave = leave.min(idle.len());
    (0..1_u32 << idle.len()).filter(|kept| kept.count_ones() as usize == leave).any(|kept| {
        let is_kept =
            |gpu: &usize| idle.iter().position(|known| known == gpu).is_some_and(|at| kept >> at & 1 == 1);
        let rest: Vec<usize> = (0..node.gpus.len()).filter(|gpu| !is_kept(gpu)).collect();
        node.only(&rest).place_anywhere(want, "mine", mix).is_ok()
    })
}

prop_compose! {
    fn any_want()(
        resource in prop::sample::select(vec![ResourceName::gpu(), SHARED(), slices()]),
        count in 1_u32..5,
        [spread, distinct, alone] in any::<[bool; 3]>(),
        plain in any::<bool>(),
    ) -> Want {
        let policy = Policy {
            placement: if spread { Packing::Spread } else { Packing::Binpack },
            distinct_gpus: distinct,
            share_with: if alone { ShareWith::Namespace } else { ShareWith::Anyone },
            ..Policy::default()
        };
        Want { policy: if plain { Policy::default() } else { policy }, ..ask(resource, count) }
    }
}

proptest! {
    /// Whatever comes: no GPU is promised twice, no small pod takes one of the last that are kept, and who could be
    /// placed beside as many is not refused.
    #[test]
    fn the_last_kept_gpus_go_to_large_pods_alone(
        forms in prop::collection::vec(prop::sample::select(FORMS.to_vec()), 1..6),
        kept in 0_usize..5,
        wants in prop::collection::vec((any_want(), prop::sample::select(vec!["mine", "theirs"])), 1..12),
    ) {
        let mut node = node(&forms, Some(&kept.to_string()));
        let mix = mix(&node);
        for (want, namespace) in wants {
            let before = node.clone();
            let whole = want.demand.devices.get(&ResourceName::gpu()).copied().unwrap_or(0);
            let is_large = whole as usize >= kept;
            match node.take(&want, namespace, &mix) {
                Some(_) => {
                    prop_assert!(!node.gpus.iter().any(is_overcommitted));
                    let left = idle_whole(&node).len();
                    prop_assert!(is_large || left >= kept.min(idle_whole(&before).len()));
                }
                None => {
                    let leave = if is_large { 0 } else { kept };
                    prop_assert_eq!(&node, &before);
                    prop_assert!(namespace != "mine" || !fits_beside_some(&node, &want, leave, &mix));
                }
            }
        }
    }
}
