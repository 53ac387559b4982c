use super::*;

fn settings(policy: Policy) -> Settings<'static> {
    Settings {
        gpus: 10,
        gpus_per_node: 1,
        model: Model::by_key("a100-40gb").unwrap(),
        mix: MixName::Uniform,
        load: 1.0,
        policy,
        moves: 0,
        seed: 1,
    }
}

fn in_use(settings: &Settings<'_>) -> f64 {
    run(settings, &mut |_| {}).unwrap().slices_in_use
}

#[test]
fn the_core_is_better_than_first_fit_moves_help_and_nothing_beats_repacking() {
    let first_fit = in_use(&settings(Policy::FirstFit));
    let core = in_use(&settings(Policy::Stowage));
    let moves = in_use(&Settings { moves: 5, ..settings(Policy::Stowage) });
    let repack = in_use(&settings(Policy::Repack));
    assert!(first_fit < core && core < moves && moves < repack, "{first_fit} {core} {moves} {repack}");
}

#[test]
fn a_run_is_the_same_again_and_another_seed_is_another_run() {
    for (_, policy) in POLICIES {
        let first = run(&settings(policy), &mut |_| {}).unwrap();
        assert_eq!(first, run(&settings(policy), &mut |_| {}).unwrap());
        assert_ne!(first.slices_in_use, in_use(&Settings { seed: 2, ..settings(policy) }));
    }
}

#[test]
fn little_load_is_served_whole() {
    for (_, policy) in POLICIES {
        let summary = run(&Settings { gpus: 100, load: 0.05, ..settings(policy) }, &mut |_| {}).unwrap();
        assert_eq!(summary.acceptance, 1.0, "{policy}");
        assert!((summary.slices_in_use - 0.05).abs() < 0.01, "{policy} {summary:?}");
    }
}

#[test]
fn moves_stay_within_their_bound() {
    let summary = run(&Settings { moves: 2, ..settings(Policy::Stowage) }, &mut |_| {}).unwrap();
    assert!(summary.moves > 0 && summary.moves_per_100_arrivals <= 2.0, "{summary:?}");
}

#[test]
fn every_model_with_mig_runs() {
    for model in stowage_shared::models::MODELS {
        let tried = run(&Settings { model, gpus: 4, ..settings(Policy::Stowage) }, &mut |_| {});
        match model.geometry() {
            Some(_) => assert!(tried.unwrap().slices_in_use > 0.5, "{}", model.key),
            None => assert!(matches!(tried, Err(SettingsError::NoMig(_)))),
        }
    }
}

#[test]
fn nonsense_is_refused_with_the_cure() {
    let refused = |settings: Settings<'_>| run(&settings, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(refused(Settings { gpus: 0, ..settings(Policy::Mfi) }), "0 GPUs: 1 to 100000 are possible");
    assert!(
        refused(Settings { load: f64::NAN, ..settings(Policy::Mfi) }).contains("1.0 asks for every slice")
    );
    assert!(refused(Settings { moves: 1, ..settings(Policy::Mfi) }).contains("policy mfi moves nobody"));
    assert!(refused(Settings { gpus_per_node: 0, ..settings(Policy::Mfi) }).contains("1 to 64"));
}

#[test]
fn names_are_read_as_they_are_written() {
    for mix in MixName::ALL {
        assert_eq!(mix.to_string().parse(), Ok(mix));
    }
    for (name, policy) in POLICIES {
        assert_eq!((name.parse(), policy.to_string()), (Ok(policy), name.to_owned()));
    }
    assert_eq!("best-fit".parse(), Ok(Policy::BestFitHigh));
    let error = "bi-modal".parse::<MixName>().unwrap_err().to_string();
    assert_eq!(error, "\"bi-modal\" is not known: use one of uniform, skew-small, skew-big, bimodal");
}

#[test]
fn the_mixes_weigh_profiles_as_they_say() {
    let weights = MixName::ALL.map(|mix| mix.weights(6));
    let want = [[1, 1, 1, 1, 1, 1], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [4, 3, 2, 2, 3, 4]];
    assert_eq!(weights, want);
    assert_eq!((MixName::Bimodal.weights(3), MixName::Bimodal.weights(1)), (vec![2, 1, 2], vec![1]));
}
