use super::demand::{Form, STEPS};
use super::*;

#[test]
fn each_class_wants_twenty_gpus_on_average() {
    for mix in MigMix::ALL {
        let mut gpus = [0.0; 3];
        let seeds = 0..8;
        for seed in seeds.clone() {
            let week = Week::new(seed, mix);
            for form in Form::ALL {
                let pods = week.of(form).iter().sum::<u64>() as f64 / STEPS as f64;
                gpus[form.class()] += pods * form.gpus() / seeds.clone().count() as f64;
            }
        }
        assert!(gpus.iter().all(|mean| (mean - 20.0).abs() < 1.0), "{mix} {gpus:?}");
    }
}

#[test]
fn elastic_needs_the_least_and_whole_gpus_the_most() {
    let needs = needs(1, MigMix::ALL[0], &mut || {}).unwrap();
    let Needs { elastic, hand_split, expert, by_means, whole, .. } = needs;
    assert!(elastic <= expert && expert <= hand_split && hand_split <= by_means, "{needs:?}");
    assert!(whole as f64 > 2.0 * elastic as f64, "{needs:?}");
    assert!(needs.occupied > 0.6 && needs.occupied <= 1.0, "{needs:?}");
}

#[test]
fn a_week_is_the_same_again() {
    let needed = |seed| {
        let week = Week::new(seed, MigMix::ALL[1]);
        (fixed::hand_split(&week), fixed::expert(&week), fixed::whole(&week), week.of(Form::Share))
    };
    assert_eq!(needed(7), needed(7));
    assert_ne!(needed(7).3, needed(8).3);
}

#[test]
fn a_mix_of_slices_is_three_numbers_that_make_100() {
    for mix in MigMix::ALL {
        assert_eq!(mix.to_string().parse(), Ok(mix));
    }
    for bad in ["", "50/50", "50/25/26", "a/b/c", "100/0/0/0", "4294967295/4294967295/102"] {
        assert!(bad.parse::<MigMix>().unwrap_err().to_string().contains("such as 50/25/25"), "{bad}");
    }
}

#[test]
fn the_table_and_the_picture_show_every_strategy() {
    let needs = |elastic| Needs {
        seed: 1,
        mix: "50/25/25".into(),
        elastic,
        elastic_random: 84,
        hand_split: 90,
        expert: 88,
        by_means: 99,
        whole: 220,
        occupied: 0.8,
    };
    let rows = [Row::of(&[needs(80), needs(82)]).unwrap()];
    let table = Table(&rows).to_string();
    assert!(table.contains("elastic                         81.0  1.000x"), "{table}");
    assert!(table.contains("whole GPUs                     220.0  2.716x"), "{table}");
    let picture = svg(&rows);
    assert!(STRATEGIES.iter().all(|name| picture.contains(name)) && picture.ends_with("</svg>\n"));
    assert_eq!(Row::of(&[]), None);
}
