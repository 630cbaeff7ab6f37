import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful import InputError, Variant, attend, ign1, ign2, ign3, parse
from heedful.layers import CONVOLUTIONS, LAYERS
from heedful.layers.pay_attention import COMPATIBILITIES, softmax
from heedful.variant import FUSIONS, Fusion, Part, Pay, parse_fusion, split_objective

# Numbers alone are drawn: building gates inside a strategy would draw from `random` through beartype.
pays = st.none() | st.tuples(
    st.integers(1, 9),
    st.sampled_from(sorted(COMPATIBILITIES)),
    st.sampled_from(["concat", "indep"]),
    st.integers(-3, 100),
)
parts = st.lists(st.tuples(st.sampled_from([*LAYERS, *CONVOLUTIONS]), st.integers(-2, 100)), max_size=3)


def gate_of(number):
    return ign1(number / 100) if number > 0 else {0: attend, -1: ign2, -2: ign3, -3: softmax}[number]


@given(parts, pays)
def test_what_is_printed_is_parsed_back(parts, pay):
    layers = tuple(Part(layer, gate_of(number)) for layer, number in parts)
    variant = Variant(layers, None if pay is None else Pay(*pay[:3], gate_of(pay[3])))
    assert parse(str(variant)) == variant


@given(st.sampled_from(FUSIONS), st.integers(-2, 100))
def test_fusions_are_parsed_back(name, number):
    fusion = Fusion(name, gate_of(number) if name == "mmtm" else attend)
    assert parse(str(fusion)) == Variant(fusion=fusion)
    assert parse_fusion(str(Variant(fusion=fusion))) == fusion


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("none", "none"),
        ("SE", "se"),
        (" se-attend ", "se"),
        ("cbam - ign1( 0.50 )", "cbam-ign1(0.5)"),
        ("se-ign1(1)", "se-ign1(1)"),
        ("se+cbam-ign2", "se+cbam-ign2"),
        ("se-ign1(learned)", "se-ign1(learned)"),
        ("se-ign1(learned 0.50)", "se-ign1(learned)"),
        ("SE-ign1( Learned 0.7 )", "se-ign1(learned0.7)"),
        ("se-ign1(1 to 0.50)", "se-ign1(1to0.5)"),
        ("PAY2 - pc", "pay2-pc"),
        ("pay3-dp-indep", "pay3-dp-indep"),
        ("pay1-additive-indep-ign1( 0.50 )", "pay1-additive-indep-ign1(0.5)"),
        ("pay2-pc-attend", "pay2-pc-attend"),
        ("se-ign2+aw+pay2-dp", "se-ign2+aw+pay2-dp"),
        (" Late", "late"),
        ("concat", "concat"),
        ("mmtm-attend", "mmtm"),
        ("MMTM - ign1( 0.50 )", "mmtm-ign1(0.5)"),
        ("mmtm-ign1(1to0.5)", "mmtm-ign1(1to0.5)"),
    ],
)
def test_spellings_of_the_same_variant(text, printed):
    assert str(parse(text)) == printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("see", r"variant 'see': unknown attention layer 'see': did you mean se\?"),
        ("cbma-ign2", "did you mean cbam"),
        ("se-ign4", "unknown gate 'ign4': did you mean"),
        ("xyzzy", "choose one of none, se, cbam"),
        ("se-ign1", r"the gate ign1 needs its number, like ign1\(0.5\)"),
        ("se-ign1()", "needs its number"),
        ("se-ign1(half)", r"alpha is half, but it must be in \(0, 1\]"),
        ("se-ign1(1.5)", r"alpha is 1.5, but it must be in \(0, 1\]"),
        ("se-ign3(0.5)", "the gate ign3 takes no number"),
        ("se-ign1(learned 1)", "a learned alpha stays below 1"),
        ("se-ign1(1to0)", "alpha is 0, but it must be in"),
        ("", "cannot read ''"),
        ("pay2", "cannot read 'pay2'; write levels and compatibility, like pay2-pc"),
        ("pay-pc", "cannot read 'pay-pc'; write levels"),
        ("pay0-pc", "cannot read 'pay0-pc'; write levels"),
        ("pay2-pd", "unknown compatibility 'pd': did you mean"),
        ("pay2-pc-ign4", "unknown gate 'ign4'"),
        ("pay2-pc-foo-bar", "cannot read 'foo-bar'; write a gate"),
        ("pay2-pc-ign1", r"the gate ign1 needs its number, like ign1\(0.5\)"),
        ("pay2-pc+se", "pay2-pc decides what the network ends in, so write it last"),
        ("pay2-pc+pay3-dp", "pay2-pc decides what the network ends in, so write it last"),
        ("se+", "cannot read ''"),
        ("none+se", "unknown attention layer 'none'"),
        ("se-ign1(0.5", "cannot read"),
        ("se--ign2", "cannot read"),
        ("mtmm", "unknown attention layer 'mtmm': did you mean mmtm"),
        ("se+mmtm", r"variant 'se\+mmtm': mmtm fuses the streams of a network and stands alone"),
        ("mmtm-ign2+pay2-pc", "mmtm-ign2 fuses the streams of a network and stands alone"),
        ("late+concat", "late fuses the streams of a network and stands alone"),
        ("late-ign2", "variant 'late-ign2': late has no gate; write late, or mmtm-ign2"),
        ("mmtm-ign1", r"variant 'mmtm-ign1': the gate ign1 needs its number, like ign1\(0.5\)"),
        ("mmtm-ing2", "variant 'mmtm-ing2': unknown gate 'ing2': did you mean ign2"),
        ("mmtm-ign1(0.5", r"unknown fusion 'mmtm-ign1\(0.5'"),
        ("se@icasc", "variant 'se@icasc': what follows @ says how to train a network"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_repair(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("se@icasc", ("se", "icasc")),
        ("none @ ICASC-GradCAM++", ("none", "icasc-gradcam++")),
        ("cbam-ign1( 0.5 )@icasc", ("cbam-ign1(0.5)", "icasc")),
        ("se+cbam", ("se+cbam", None)),
    ],
)
def test_an_objective_may_follow(text, parts):
    assert split_objective(text) == parts


@pytest.mark.parametrize("text", ["se@", "se@icasc@icasc", "se@@icasc", "@"])
def test_there_is_one_objective(text):
    with pytest.raises(InputError, match=f"variant '{text}': write one @ and one objective after it, like se@icasc"):
        split_objective(text)
