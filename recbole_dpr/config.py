"""DPRConfig: reads `DPR-<Backbone>`, layers the property files, checks names and values.

Checked against `recbole.config.Config` of RecBole 1.2.1, whose methods are overridden one by one
and called wherever they do the right thing.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config
from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_dpr import compat
from recbole_dpr.checks import check_options
from recbole_dpr.data.columns import needed_columns
from recbole_dpr.errors import DPRError
from recbole_dpr.files import (
    CONFIG_FILE,
    YamlLoader,
    known_phrasebooks,
    plain,
    properties_dir,
    read_run_options,
    read_yaml,
    recbole_dir,
    write_text,
)
from recbole_dpr.layers import CONFIG_DICT, Layers
from recbole_dpr.naming import check_dataset, model_of_run, resolve_model
from recbole_dpr.options import SCRIPT_FLAGS, layered_options, read_options
from recbole_dpr.readers import NAMES, reader_names
from recbole_dpr.stage_options import StageOptions, warn_overruled

# What RecBole's Config and this one derive from the options; never written to a run folder.
DERIVED = (
    "MODEL_TYPE",
    "MODEL_INPUT_TYPE",
    "eval_type",
    "valid_metric_bigger",
    "valid_neg_sample_args",
    "test_neg_sample_args",
    "device",
    "single_spec",
    "local_rank",
    "backbone",
    "promptable",
    "resume",
    # Names of fields that RecBole's transforms of sequences (BERT4Rec, SHAN) leave in the config.
    "MASK_INDEX",
    "MASK_ITEM_SEQ",
    "POS_ITEMS",
    "NEG_ITEMS",
    "INVERSE_ITEM_SEQ",
    "CROP_ITEM_SEQ",
    "CROP_ITEM_SEQ_LEN",
    "REORDER_ITEM_SEQ",
    *SCRIPT_FLAGS,
)


class DPRConfig(Config):
    """The options of one run, weakest layer first:

    RecBole's `overall.yaml` and the backbone's RecBole yaml; `properties/overall.yaml`,
    `properties/model/DPR.yaml`, `properties/model/<Backbone>.yaml` where there is one,
    `properties/dataset/<name>.yaml`; config files; `config_dict`; command line.

    Parameters
    ----------
    model : str or type, optional
        `DPR-<Backbone>` or the name of a RecBole sequential model, upper and lower case being the
        same; or a SequentialRecommender class of your own, over which DPR runs. It takes its defaults from the
        RecBole model that it derives from, and may declare further options in a dict
        `default_options`. Without a model: option `model` of the layers above.
    dataset : str, optional
        A folder under `data_path`, or a data set that RecBole can download.
    config_file_list : list of str, optional
        Yaml files, the last one being the strongest.
    config_dict : dict, optional
        Options by name.
    command_line : sequence of str, optional
        Texts `--key=value`. Unlike RecBole's, this class never reads `sys.argv` by itself and
        never passes a text through `eval`.

    Attributes
    ----------
    model, dataset : str
        As in `config["model"]` ("DPR-SASRec") and `config["dataset"]`.
    model_class : type
        Class of the backbone.
    given : dict
        The options that the user gave, beside those of a run that is gone on with.

    Raises
    ------
    DPRError
        Naming the option, where it was given, and the nearest right name or the type it takes.

    Notes
    -----
    Beside RecBole's keys, `config["backbone"]` is the backbone's name and `config["promptable"]`
    tells DPR from a plain model. A name that no layer sets reads as None, as in RecBole.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | Path] | None = None,
        config_dict: dict[str, Any] | None = None,
        command_line: Sequence[str] = (),
        _saved: tuple[str, dict[str, Any]] | None = None,
    ) -> None:
        self._command_line = tuple(command_line)
        self._check_data = _saved is None
        self._layers = Layers()
        self._run = _saved[0] if _saved else ""
        if _saved:
            self._layers.add(*_saved)
        super().__init__(model, dataset, config_file_list, config_dict)

    @classmethod
    def from_run(
        cls,
        run_dir: str | Path,
        model: type | None = None,
        config_dict: dict[str, Any] | None = None,
        command_line: Sequence[str] = (),
    ) -> DPRConfig:
        """Rebuild the config of a run from its folder.

        Every option has the value that the run had, whatever the property files say by now;
        `config_dict` and `command_line` are stronger still. The data set need not be there.

        Parameters
        ----------
        model
            The class, if the run's model was one of your own.

        Raises
        ------
        DPRError
            If `config.yaml` is missing, cut off, or holds an option or value that is not right; or another
            model is asked for.
        """
        saved = read_run_options(run_dir)
        model_of_run(run_dir, saved["model"], model)
        config = cls(
            model,
            None,
            None,
            config_dict,
            command_line,
            _saved=(str(Path(run_dir) / CONFIG_FILE), saved),
        )
        if config["model"] != saved["model"]:
            raise DPRError(f"{run_dir} holds a {saved['model']}, not a {config['model']}")
        return config

    def stage(self, number: int) -> StageOptions:
        """The options of stage 1, 2 or 3."""
        return StageOptions.of(self, number)

    def to_yaml(self, path: str | Path) -> None:
        """Write every option as plain yaml, whole or not at all; `from_run` reads it back.

        Raises
        ------
        DPRError
            If an option has no plain form, or the file cannot be written.
        """
        options = self.to_save()
        head = "# The options of this run. Read back by recbole_dpr; ends with three dots.\n"
        try:
            text = head + yaml.safe_dump(options, allow_unicode=True, explicit_end=True)
        except yaml.YAMLError as error:
            raise DPRError(f"an option of this run is not plain yaml: {error}") from error
        write_text(path, text)

    def to_save(self) -> dict[str, Any]:
        """The options as `to_yaml` writes them: plain, with paths in full."""
        options = {k: plain(v) for k, v in self.final_config_dict.items() if k not in DERIVED}
        root = Path(self._data_root)
        # In full where it holds the data, so that the run can be resumed from another folder.
        options["data_path"] = str(root.resolve() if (root / self.dataset).is_dir() else root)
        for name in ("backbone_checkpoint", "checkpoint"):
            options[name] = options[name] and str(Path(options[name]).resolve())
        for name in ("text_encoder", "rerank_model"):
            options[name] = _in_full(options[name], ())
        options["phrasebook"] = _in_full(options["phrasebook"], known_phrasebooks())
        if options["reader"]:
            readers = [_in_full(name, NAMES) for name in reader_names(options)]
            options["reader"] = readers if isinstance(options["reader"], list) else readers[0]
        if options["train_neg_sample_args"]["distribution"] == "none":
            options["train_neg_sample_args"] = None  # what RecBole made the "none" of
        return options

    # What follows overrides RecBole's Config, in the order in which its __init__ calls it.

    def compatibility_settings(self) -> None:
        compat.bridge_numpy()
        compat.quiet_warnings()

    def _init_parameters_category(self) -> None:
        ours = read_options(properties_dir() / "model" / "DPR.yaml")
        # Copies: RecBole would extend its own global lists here with every config.
        self.parameters = {
            "General": [*general_arguments],
            "Training": [*training_arguments],
            "Evaluation": [*evaluation_arguments],
            "Dataset": [*dataset_arguments],
            "DPR": ["backbone", "promptable", *ours],
        }

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return YamlLoader

    def _load_config_files(self, file_list: Sequence[str | Path] | None) -> dict[str, Any]:
        self._layers.add_files(file_list)
        return {}

    def _load_variable_config_dict(self, config_dict: dict[str, Any] | None) -> dict[str, Any]:
        self._layers.add(CONFIG_DICT, config_dict or {})
        return {}

    def _load_cmd_line(self) -> dict[str, Any]:
        self._layers.add_command_line(self._command_line)
        return {}

    def _merge_external_config_dict(self) -> None:
        self.external_config_dict: dict[str, Any] = self._layers.raw()

    def _get_model_and_dataset(
        self, model: str | type | None, dataset: str | None
    ) -> tuple[str, type, str]:
        defaults = read_yaml(properties_dir() / "overall.yaml")
        given = {**defaults, **self.external_config_dict}
        self._resolved = resolve_model(given["model"] if model is None else model)
        dataset = given["dataset"] if dataset is None else dataset
        if self._check_data:
            root = self.external_config_dict.get("data_path")
            default = read_options(recbole_dir() / "properties" / "overall.yaml")["data_path"]
            check_dataset(dataset, os.path.expanduser(str(root or default.default)))
        return self._resolved.name, self._resolved.model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(self._resolved.recbole_name, model_class, dataset)
        self.internal_config_dict.update(copy.deepcopy(self._resolved.default_options))
        for file in self._own_files(dataset):
            self.internal_config_dict.update(read_yaml(file))

    def _own_files(self, dataset: str) -> list[Path]:
        backbone = f"model/{self._resolved.recbole_name}.yaml"
        names = ("overall.yaml", "model/DPR.yaml", backbone, f"dataset/{dataset}.yaml")
        return [file for name in names if (file := properties_dir() / name).is_file()]

    def _get_final_config_dict(self) -> dict[str, Any]:
        recbole = recbole_dir() / "properties"
        names = ("overall", f"model/{self._resolved.recbole_name}", "dataset/sample")
        files = [recbole / f"{name}.yaml" for name in names]
        options = layered_options([*files, *self._own_files(self.dataset)])
        self.external_config_dict = self._layers.checked(
            options, self._resolved.default_options, self.internal_config_dict, self.model
        )
        final = {**self.internal_config_dict, **self.external_config_dict}
        # What a run folder holds was warned of when the run began.
        given = self._layers.names(without=self._run)
        self.given: dict[str, Any] = {name: final[name] for name in given}
        warn_overruled(self.given, final, self._resolved.promptable)
        return final

    def _set_default_parameters(self) -> None:
        final = self.final_config_dict
        final["backbone"] = self._resolved.backbone
        final["promptable"] = self._resolved.promptable
        check_options(final, self.internal_config_dict)
        self._data_root = final["data_path"]
        try:
            super()._set_default_parameters()
        except (ValueError, TypeError, RuntimeError) as error:  # NotImplementedError is the last's
            raise DPRError(str(error)) from error
        # RecBole takes ml-100k from its own example folder, whatever data_path says.
        folder = Path(self._data_root, self.dataset)
        bundled = os.path.realpath(final["data_path"])
        final["data_path"] = str(folder) if folder.is_dir() else bundled
        final["load_col"] = needed_columns(final)

    def _init_device(self) -> None:
        asked = self.final_config_dict["gpu_id"]
        if not self.final_config_dict["use_gpu"]:
            self.final_config_dict["gpu_id"] = ""  # RecBole 1.2.1 does not look at use_gpu
        super()._init_device()
        if not self.final_config_dict["use_gpu"]:
            self.final_config_dict["gpu_id"] = asked  # for whoever takes up the run with use_gpu


def _in_full(name: str | None, known: Sequence[str]) -> str | None:
    """A path in full, if it is one rather than a name."""
    if not name or name in known or not Path(name).expanduser().exists():
        return name
    return str(Path(name).expanduser().resolve())
