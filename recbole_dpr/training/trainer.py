"""DPRTrainer: the three stages, inside RecBole's trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.register import smaller_metrics
from recbole.trainer import Trainer
from torch import Tensor

from recbole_dpr.checkpoint import ITEM_TEXT, MODEL_FILE, load_tensors, load_weights, save_tensors
from recbole_dpr.checks import OWN_METRICS
from recbole_dpr.errors import DPRError
from recbole_dpr.metrics import DECIMALS, PromptCollector, register_metrics
from recbole_dpr.model.backbone import Backbone, set_unknown_user
from recbole_dpr.model.dpr import DPR
from recbole_dpr.options import reported_k
from recbole_dpr.training.averaging import RunningAverage, put_weights, snapshot
from recbole_dpr.training.epoch_log import EpochLog
from recbole_dpr.training.resume import (
    RESUME_FILE,
    Progress,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
)
from recbole_dpr.training.stages import (
    Stage,
    alignment_stage,
    collaborative_stage,
    joint_stage,
    own_stage,
    prompted_stage,
)
from recbole_dpr.training.validation import (
    PromptedTraining,
    Result,
    validate_prompted,
)


class DPRTrainer(Trainer):
    """Trains DPR in three stages, or a plain model in the first of them.

    RecBole's own ``_train_epoch`` (progress bar, autocast, clipping) and ``evaluate`` do the work; this
    class says what a stage trains, keeps the best weights of each, and writes a checkpoint after
    every epoch, from which `resume` goes on bit for bit.

    Parameters
    ----------
    config : DPRConfig
    model : DPR or SequentialRecommender
    run_dir : path
        Where checkpoints go.
    training : PromptedTraining, optional
        Needed for stages 2 and 3.

    Attributes
    ----------
    history : list of dict
        One entry per epoch: ``stage``, ``title``, ``epoch``, ``steps``, ``loss``, ``valid`` (figures by name,
        empty before stage 1), ``best``, ``seconds`` and, of these, ``train_seconds``.
    seconds : dict
        Wall-clock seconds of each stage.
    """

    def __init__(
        self,
        config: Any,
        model: Any,
        run_dir: str | Path,
        training: PromptedTraining | None = None,
    ) -> None:
        super().__init__(config, model)
        self.run_dir = Path(run_dir)
        self.training = training
        self.history: list[dict[str, Any]] = []
        self.seconds = {f"stage{n}": 0.0 for n in (1, 2, 3)}
        # What no stage trains (the shipped reader, item texts) needs no place in a checkpoint of training.
        frozen = {n for n, p in self.model.named_parameters() if not p.requires_grad}
        self._fixed = frozen | {ITEM_TEXT}
        self._stage: Stage | None = None
        self._epoch = self._step = 0
        self._best: dict[str, Tensor] = {}
        self._average = RunningAverage(self.model, 0)
        self._resumed: Progress | None = None
        register_metrics()
        settings = {key: config[key] for key in ("topk", "eval_args", "device")}
        settings["metrics"] = [*config["metrics"], "Satisfied", "Violation"]
        settings["metric_decimal_place"] = DECIMALS
        self.eval_collector = PromptCollector(settings)
        self.evaluator = Evaluator(settings)
        self.best_valid_score: float
        self.best_valid_result: Result | None

    # The stages

    def stages(self, train_data: Any) -> Iterator[Stage]:
        """The stages of this model, each made when the one before has ended."""
        model = self.model
        backbone = model.backbone if isinstance(model, DPR) else Backbone(model)
        if self.config["pretrain_epochs"] and hasattr(backbone.model, "pretrain"):  # S3Rec's
            yield own_stage(self.config, backbone.model, train_data.dataset)
        if isinstance(model, DPR) and self.config["joint"]:
            assert self.training is not None
            yield joint_stage(self.config, model, train_data, self.training)
            set_unknown_user(backbone.model)
            return
        loss = model.calculate_loss if isinstance(model, DPR) else backbone.training_loss
        yield collaborative_stage(self.config, backbone, loss, train_data)
        set_unknown_user(backbone.model)
        if isinstance(model, DPR):
            model.freeze_backbone()
            if self.training is not None:
                yield alignment_stage(self.config, model, self.training, train_data.dataset)
                yield prompted_stage(self.config, model, train_data.dataset)

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, Result]:
        """Run every stage that has epochs; RecBole's signature.

        Returns
        -------
        (float, dict)
            Best validation score and figures of the last stage that ran.

        Raises
        ------
        DPRError
            If a loss becomes NaN (names stage, epoch and step) or a checkpoint cannot be written.
        """
        self.eval_collector.data_collect(train_data)
        with closing(self.tensorboard):  # RecBole leaves it open, with a thread of its own
            for stage in self.stages(train_data):
                cut_off_here = self._resumed and self._resumed.stage == stage.number
                if not (stage.options.epochs or cut_off_here):
                    self.logger.info(f"stage {stage.number} ({stage.title}) is skipped: 0 epochs")
                    continue
                self._begin(stage)
                first = self._first_epoch(stage)
                if first is not None:
                    self._run(stage, first, valid_data, verbose, saved, show_progress, callback_fn)
        if saved:
            about = {"model": self.config["model"], "dataset": self.config["dataset"]}
            save_tensors(self.run_dir / MODEL_FILE, self.model.state_dict(), about)
        return self.best_valid_score, self.best_valid_result or {}

    def _begin(self, stage: Stage) -> None:
        """Set up a stage."""
        earlier, self._stage = self._stage, stage
        # Stage 3 is validated as stage 2 was, so it has to beat where that ended.
        goes_on = bool(self.best_valid_result and earlier and earlier.measures_like(stage))
        self._best = {}
        self.cur_step = 0
        self.valid_metric = stage.options.valid_metric.lower()
        self.valid_metric_bigger = self.valid_metric.split("@")[0] not in smaller_metrics
        if not goes_on:
            self.best_valid_result = None
            self.best_valid_score = -torch.inf if self.valid_metric_bigger else torch.inf
        chosen = {id(parameter) for parameter in stage.parameters}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
            parameter.grad = None  # what an earlier stage left would count in clip_grad_norm
        if goes_on:
            self._best = snapshot(self.model)
        self._average = RunningAverage(self.model, stage.options.averaging)
        self.optimizer = self._build_optimizer(
            params=[{"params": parameters, "peak": rate} for parameters, rate in stage.groups],
            learning_rate=stage.options.learning_rate,
            weight_decay=stage.options.weight_decay,
        )
        self.optimizer.register_step_post_hook(lambda *_: self._average.update(self._step))

    def _finished(self, stage: Stage, epoch: int) -> bool:
        """Whether a stage ends after this epoch, counted from 0."""
        return self.cur_step > stage.options.patience or epoch + 1 >= stage.options.epochs

    def _run(
        self,
        stage: Stage,
        first_epoch: int,
        valid_data: Any,
        verbose: bool,
        saved: bool,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None,
    ) -> None:
        log = EpochLog(
            self.logger, self.tensorboard, self.wandblogger, reported_k(self.config["topk"])
        )
        if verbose and not first_epoch:
            log.begin(stage)
        for epoch in range(first_epoch, stage.options.epochs):
            started = perf_counter()
            self._epoch = epoch
            stage.loader.set_epoch(epoch)
            self._step = sum(row["steps"] for row in self.history if row["stage"] == stage.number)
            losses = self._train_epoch(stage.loader, epoch, self._loss, show_progress)
            steps = len(stage.loader)
            loss = (sum(losses) if isinstance(losses, tuple) else losses) / steps
            trained = perf_counter() - started
            with self._average.applied():
                result = self._validate(stage, valid_data)
                improved = self._compare(result)
            finished = self._finished(stage, epoch)
            seconds = perf_counter() - started
            name = f"stage{stage.number}"
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            row = {
                "stage": stage.number,
                "title": stage.title,
                "epoch": epoch,
                "steps": steps,
                "loss": loss,
                "valid": result,
                "best": improved and bool(result),
                "seconds": round(seconds, 3),
                "train_seconds": round(trained, 3),
            }
            self.history.append(row)
            log.epoch(stage, row, self.valid_metric, verbose)
            if saved:
                self._save_resume(stage, epoch)
            if callback_fn:
                callback_fn(epoch, result.get(self.valid_metric, 0.0))
            if finished:
                break
        put_weights(self.model, self._best)
        log.end(stage, [row for row in self.history if row["stage"] == stage.number])

    def _loss(self, interaction: Any) -> Any:
        """The stage's loss; also where RecBole's epoch lets a learning rate schedule in."""
        assert self._stage is not None
        rate = self._stage.rate(self._step, self.config["warmup_steps"])
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        self._step += 1
        return self._stage.loss(interaction)

    def _check_nan(self, loss: Tensor) -> None:
        if torch.isnan(loss):
            stage = self._stage
            assert stage is not None
            raise DPRError(
                f"the loss is NaN in stage {stage.number} ({stage.title}), epoch {self._epoch}, step "
                f"{self._step}: lower --stage{stage.number or 1}_learning_rate or set clip_grad_norm='{{max_norm: 1}}'"
            )

    # Validation

    def _validate(self, stage: Stage, valid_data: Any) -> Result:
        if not valid_data or not stage.number:  # before stage 1 there is nothing to stop early for
            return {}
        if not stage.prompted:
            return dict(self.evaluate(valid_data, load_best_model=False))
        assert self.training is not None
        return validate_prompted(
            self.model,
            self.training,
            self.eval_collector,
            valid_data,
            lambda loader: dict(self.evaluate(loader, load_best_model=False)),
        )

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> Any:
        """As RecBole's; the best model comes from safetensors, never from a pickle."""
        if load_best_model:
            path = Path(model_file) if model_file else self.run_dir / MODEL_FILE
            weights, _ = load_tensors(path)
            load_weights(self.model, weights, path)
        figures = super().evaluate(eval_data, False, None, show_progress)
        if not figures or self.eval_collector.masks is not None:
            return figures
        # Where nothing is asked, nothing is satisfied or violated.
        return {n: value for n, value in figures.items() if n.split("@")[0] not in OWN_METRICS}

    def _compare(self, result: Result) -> bool:
        """Keep the weights if they are the best of the stage so far."""
        if self.valid_metric not in result:
            improved = True  # nothing to compare by: the last weights count
        else:
            value = float(result[self.valid_metric])
            better = value > self.best_valid_score
            if not self.valid_metric_bigger:
                better = value < self.best_valid_score
            improved = better or not self._best
            if improved:
                self.best_valid_score, self.best_valid_result = value, result
        self.cur_step = 0 if improved else self.cur_step + 1
        if improved:
            self._best = snapshot(self.model)
        return improved

    # Killed and resumed

    def resume(self, path: str | Path) -> None:
        """Let the next `fit` go on where the run of this checkpoint was cut off.

        Raises
        ------
        DPRError
            If the checkpoint is damaged or belongs to another model.
        """
        progress = Progress.load(path)
        fixed = {n: w for n, w in self.model.state_dict().items() if n in self._fixed}
        load_weights(self.model, progress.model | fixed, path)
        self._resumed = progress
        self.history, self.seconds = progress.history, progress.seconds
        self.logger.info(f"Going on after stage {progress.stage}, epoch {progress.epoch}")

    def _first_epoch(self, stage: Stage) -> int | None:
        """Where a stage that has been set up begins, or goes on; None if a resumed run has it behind itself."""
        progress = self._resumed
        if progress is None:
            return 0
        if progress.stage > stage.number:
            return None
        self._resumed = None
        if progress.stage < stage.number:
            return 0
        self._restore(progress)
        # By the options of now: more epochs may be asked for than when it was written.
        if self._finished(stage, progress.epoch):
            put_weights(self.model, self._best)
            return None
        return progress.epoch + 1

    def _restore(self, progress: Progress) -> None:
        self.best_valid_score = progress.best_valid_score
        self.best_valid_result = progress.best_valid_result
        self.cur_step = progress.cur_step
        self._best = progress.best
        if progress.average:  # else there was none, and one that is asked for now begins here
            self._average.weights = {n: w.to(self.device) for n, w in progress.average.items()}
        restore_optimizer(self.optimizer, progress.optimizer)
        restore_random_state(progress.rng)

    def _save_resume(self, stage: Stage, epoch: int) -> None:
        Progress(
            stage.number,
            epoch,
            self.best_valid_score,
            self.best_valid_result,
            self.cur_step,
            self.history,
            self.seconds,
            model={n: w for n, w in self.model.state_dict().items() if n not in self._fixed},
            best=self._best,
            average=self._average.weights,
            optimizer=optimizer_tensors(self.optimizer),
            rng=random_state(),
        ).save(self.run_dir / RESUME_FILE)
