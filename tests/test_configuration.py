"""Configurations: what is unknown or impossible is refused by its name."""

import pytest
from conftest import LABELS, tiny_config
from huggingface_hub.errors import StrictDataclassError

from modeling_umgf import ObjectAgbanConfig, RgcnConfig, RpbertConfig, UmgfConfig, UmtConfig, systems

every_configuration = pytest.mark.parametrize("config_class", [own.config for own in systems().values()])


@every_configuration
def test_an_unknown_setting_is_refused_with_the_closest_known_one(config_class, tmp_path):
    with pytest.raises(ValueError, match=f"{config_class.__name__} has no setting 'drop_out'; did you mean 'dropout'"):
        config_class(drop_out=0.1)
    with pytest.raises(ValueError, match=f"{config_class.__name__} has no setting 'qqq'; it has .*dropout"):
        config_class(qqq=4)
    config_class().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no setting 'drop_out'"):
        config_class.from_dict(config_class.get_config_dict(tmp_path)[0] | {"drop_out": 0.1})


def test_a_misspelt_number_of_layers_is_refused():
    with pytest.raises(ValueError, match="UmgfConfig has no setting 'num_layer'; did you mean 'num_layers'"):
        tiny_config(num_layer=3)


@every_configuration
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout", 1.5),
        ("dropout", -0.1),
        ("word_dropout", 1.0),
        ("classifier_dropout", "much"),
        ("object_feature_size", 0),
        ("label_decoder", "viterbi"),
        ("crf_reduction", "none"),
        ("finetune_text", "yes"),
    ],
)
def test_an_impossible_value_is_refused_with_the_name_of_its_setting(config_class, name, value):
    with pytest.raises(StrictDataclassError, match=f"'{name}'"):
        config_class(**{name: value})


@pytest.mark.parametrize(
    ("config_class", "name", "value"),
    [
        (UmgfConfig, "num_layers", -1),
        (UmgfConfig, "num_layers", 0),
        (UmgfConfig, "d_model", 0),
        (UmgfConfig, "num_heads", 2.5),
        (UmgfConfig, "visual_nodes", "boxes"),
        (RgcnConfig, "k", -1),
        (RgcnConfig, "num_heads", 0),
        (RgcnConfig, "readout", "max"),
        (RgcnConfig, "gcn_norm", True),
        (ObjectAgbanConfig, "alignment_weight", -1),
        (ObjectAgbanConfig, "alignment_object_weight", float("inf")),
        (RpbertConfig, "relation_weight", float("nan")),
        (UmtConfig, "auxiliary_weight", -0.1),
    ],
)
def test_an_impossible_value_of_a_systems_own_setting_is_refused(config_class, name, value):
    with pytest.raises(StrictDataclassError, match=f"'{name}'"):
        config_class(**{name: value})


def test_labels_of_pieces_need_their_three_labels():
    with pytest.raises(StrictDataclassError, match=r"\['X', '\[CLS\]'\] not among the labels"):
        tiny_config(labels=[*LABELS, "[SEP]"], subword_labels="x", inter_edges="full")


def test_the_tokens_that_an_older_trainer_writes_into_a_configuration_are_no_unknown_settings():
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    assert UmgfConfig.from_dict(tiny_config().to_dict() | tokens).d_model == tiny_config().d_model


@pytest.mark.parametrize(("name", "text_encoder"), [("umgf", "bert"), ("vg", "bilstm")])
def test_an_encoder_without_a_type_has_that_of_the_system(name, text_encoder):
    config = systems()[name].config(text_config={"hidden_size": 48}, vision_config={"depths": [1, 1]})
    assert (config.text_config.model_type, config.text_config.hidden_size) == (text_encoder, 48)
    assert (config.vision_config.model_type, config.vision_config.depths) == ("resnet", [1, 1])


@pytest.mark.parametrize("name", ["text_config", "vision_config"])
def test_an_encoder_that_transformers_does_not_know_is_refused(name):
    with pytest.raises(ValueError, match="no_such_encoder"):
        UmgfConfig(**{name: {"model_type": "no_such_encoder"}})
    with pytest.raises(StrictDataclassError, match=name):
        UmgfConfig(**{name: "google-bert/bert-base-cased"})
