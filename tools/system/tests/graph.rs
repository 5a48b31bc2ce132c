//! The picture shows every part of the system, and is the same every time.

mod common;

#[test]
fn every_part_is_in_the_picture() {
    let root = common::project(&common::files().join("good.toml"));
    let model = common::read(&root).unwrap_or_else(|report| panic!("{report}"));
    let svg = system::draw(&model);
    assert_eq!(svg, system::draw(&model));
    let texts: Vec<&str> = svg
        .lines()
        .filter_map(|line| line.strip_prefix("<text ")?.split_once('>'))
        .filter_map(|(_, text)| text.strip_suffix("</text>"))
        .collect();
    for component in &model.components {
        assert!(texts.contains(&component.name.as_str()), "{texts:?}");
    }
    for channel in &model.channels {
        assert!(texts.contains(&channel.interface.as_str()), "{texts:?}");
    }
    for text in ["guest web", "32M", "function nic0", "traps", "BARs"] {
        assert!(texts.contains(&text), "{text} in {texts:?}");
    }
    let arrows = svg.matches("<path ").count();
    let guests = 1;
    assert_eq!(arrows, model.channels.len() + guests + model.devices.len());
}
