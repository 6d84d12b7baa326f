"""Times a training step of masked tokens on a CPU, ours against the same network of transformers in PyTorch.

    python benchmarks/text_step.py [--rounds=3] [--threads=2] [--seconds=15] --torch-python=/path/to/python
    python benchmarks/text_step.py --embed [--rows=20000]

The other Python needs torch and transformers. RoBERTa with 6 blocks, 384 wide, 6 heads, 8,000 tokens; batches of 64
texts of 8 to 32 tokens, padded to 32; float32, dropout 0.1 behind each part and none in the attention. A step hides
15 % of the tokens and does forward, cross-entropy, backward, clipping, AdamW and the moving average. transformers runs
in PyTorch's eager mode with its fused attention ("sdpa"), twice: as published, which predicts all tokens of a text, and
with its head on the hidden tokens alone, as ours has it. Every timing runs in a process of its own, pinned to the same
cores; rounds alternate between the systems. On a machine that others use too, trust the ratio of processor times.

Prints a Markdown table, and how long the tokenizer takes for the texts of a step.

--embed times texts through `inference.predict`, from strings to vectors, in queries per minute: the BiGRU of 100 + 100
and a transformer of 2 blocks, 100 wide, into 100 dimensions. Queries have 1 to 6 words of the embedded catalogue.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

from train_step import in_process, spread

VOCABULARY, ROWS, LENGTH, DEPTH, WIDTH, HEADS = 8000, 64, 32, 6, 384, 6
DROPOUT, LEARNING_RATE, WEIGHT_DECAY, CLIP, EMA = 0.1, 1e-4, 0.05, 1.0, 0.99
SYSTEMS = ("ours", "transformers, all tokens", "transformers, hidden tokens")
TOWERS = {
    "bigru": ("bigru", "mini", {}),
    "transformer of 2 blocks": ("transformer", "mini", {"width": 100, "heads": 4, "hidden": 400}),
}


def batch() -> dict:
    """Returns the batch, which is the same for all systems."""
    import numpy as np

    rng = np.random.default_rng(0)
    lengths = rng.integers(8, LENGTH + 1, ROWS)
    mask = np.arange(LENGTH) < lengths[:, None]
    tokens = rng.integers(5, VOCABULARY, (ROWS, LENGTH))
    tokens[:, 0] = 0
    tokens[np.arange(ROWS), lengths - 1] = 2
    words = np.arange(LENGTH) - 1 + np.zeros((ROWS, 1), int)
    words[np.arange(ROWS), lengths - 1] = -1
    return {
        "tokens": np.where(mask, tokens, 0).astype(np.int32),
        "tokens_mask": mask,
        "words": np.where(mask, words, 0).astype(np.int32),
        "words_mask": mask,
        "row": np.arange(ROWS, dtype=np.int32),
        "_mask": np.ones(ROWS, bool),
    }


def timed(step, seconds: float) -> dict:
    """Times step(), which returns the loss once computed, for about `seconds`."""
    losses = [step() for _ in range(3)]
    start, times, processor = time.perf_counter(), [], time.process_time()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        losses.append(step())
        times.append(time.perf_counter() - before)
    return {
        "ms": 1e3 * statistics.median(times),
        "cpu_ms": 1e3 * (time.process_time() - processor) / len(times),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def ours_path() -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))


def time_ours(seconds: float) -> dict:
    """Times our step."""
    ours_path()
    import jax
    import ml_collections
    import numpy as np

    from retrieval_jax import tasks
    from retrieval_jax.data.info import DataInfo, Tokens
    from retrieval_jax.settings import base
    from retrieval_jax.settings import tasks as options
    from retrieval_jax.training import optim, sharding
    from retrieval_jax.training.update import make_update

    config = base.defaults().train
    config.model.update({"name": "transformer", "variant": "medium", "projection": 0})
    config.model.kwargs = ml_collections.ConfigDict({"length": 512, "offset": 2, "types": 1, "dropout": DROPOUT})
    config.task, config.task_kwargs = "masked_tokens", options.masked_tokens()
    config.update({"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "clip_norm": CLIP, "ema_decay": EMA})
    config.warmup_epochs = 0.5
    facts = Tokens(VOCABULARY, pad=1, mask=4, start=0, end=2, unknown=3, hash="")
    info = DataInfo([], np.zeros(0, np.int64), 10_000, (), (), "", tokens=facts)
    task, mesh, data = tasks.get("masked_tokens").make(config, info), sharding.make_mesh(), batch()

    def init():
        params = task.init(jax.random.key(0), data)
        optimizer, _ = optim.make(config, params, 10_000, 100.0)
        return {"params": params, "ema": params, "opt_state": optimizer.init(params), "step": jax.numpy.int32(0)}

    state = jax.jit(init, out_shardings=sharding.replicated(mesh))()
    optimizer, _ = optim.make(config, state["params"], 10_000, 100.0)
    by_batch, by_state = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    update = make_update(task, optimizer, jax.random.key(1), EMA, by_batch, by_state)
    data = sharding.shard_batch(data, mesh)

    def step():
        nonlocal state
        state, values = update(state, data, None)
        return float(values["loss"])

    return {"version": f"jax {jax.__version__}", **timed(step, seconds)}


def time_transformers(seconds: float, threads: int, hidden_only: bool, attention: str) -> dict:
    """Times the same step of transformers in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=514,
        type_vocab_size=1,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=0.0,
        attn_implementation=attention,
    )
    model = transformers.RobertaForMaskedLM(config)
    model.train()
    params = list(model.parameters())
    average = [param.detach().clone() for param in params]
    groups = [
        {"params": [param for param in params if param.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [param for param in params if param.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, foreach=True)
    data = {name: torch.from_numpy(value) for name, value in batch().items()}
    mask = data["tokens_mask"]
    tokens = torch.where(mask, data["tokens"].long(), 1)
    may = mask & (data["words"] >= 0)
    generator = torch.Generator().manual_seed(0)

    def step():
        # As DataCollatorForLanguageModeling hides tokens.
        hidden = may & (torch.rand(tokens.shape, generator=generator) < 0.15)
        kind = torch.rand(tokens.shape, generator=generator)
        other = torch.randint(0, VOCABULARY, tokens.shape, generator=generator)
        shown = torch.where(hidden & (kind < 0.8), 4, tokens)
        shown = torch.where(hidden & (kind >= 0.8) & (kind < 0.9), other, shown)
        if hidden_only:
            states = model.roberta(input_ids=shown, attention_mask=mask.long()).last_hidden_state
            loss = torch.nn.functional.cross_entropy(model.lm_head(states[hidden]), tokens[hidden])
        else:
            labels = torch.where(hidden, tokens, -100)
            loss = model(input_ids=shown, attention_mask=mask.long(), labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - EMA)
        return float(loss.detach())

    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return {"version": version, **timed(step, seconds)}


def texts(count: int, words: int) -> list[str]:
    """Returns texts of the embedded catalogue's words, of 1 to `words` of them."""
    import numpy as np

    from retrieval_jax.data import loading
    from retrieval_jax.settings import base

    config = base.defaults().data
    config.kwargs = {"seed": 0, "num_train": 2000, "num_val": 10, "num_query": 10, "num_gallery": 20, "image_size": 16}
    titles = list(loading.load(config).train.titles)
    known, rng = sorted({word for title in titles for word in title.split()}), np.random.default_rng(0)
    return titles + [" ".join(rng.choice(known, rng.integers(1, words + 1))) for _ in range(count)]


def tokenizer_ms() -> float:
    """Returns the milliseconds in which the tokenizer reads the texts of a step."""
    ours_path()
    from retrieval_jax.data import text

    made = texts(ROWS, 20)
    tokenizer, made = text.train(made, VOCABULARY), made[-ROWS:]
    times = []
    for _ in range(50):
        before = time.perf_counter()
        tokenizer.encode(made, LENGTH)
        times.append(time.perf_counter() - before)
    return 1e3 * statistics.median(times)


def embed(rows: int, threads: int) -> None:
    """Prints queries per minute, from strings to vectors, of small towers."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    ours_path()
    import jax
    import jax.numpy as jnp
    import numpy as np

    from retrieval_jax import inference
    from retrieval_jax.data import text
    from retrieval_jax.models import text as networks
    from retrieval_jax.tasks import Predict
    from retrieval_jax.training import sharding

    made = texts(rows, 6)
    tokenizer, made, mesh = text.train(made, VOCABULARY), made[-rows:], sharding.make_mesh()
    print("| tower | parameters | queries per minute | of it the tokenizer |\n|---|---:|---:|---:|")
    for name, (network, variant, kwargs) in TOWERS.items():
        module = networks.get(network)
        fields = {**module.VARIANTS[variant], **kwargs, "dim": 100}
        tower = module.Model(vocabulary=tokenizer.size, **fields)
        params = tower.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))["params"]
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        run = Predict(
            lambda params, batch, tower=tower: tower.apply({"params": params}, batch["query"], batch["query_mask"]),
            ("query",),
        )
        only = Predict(lambda params, batch, run=run: {"embedding": run(params, batch)["embedding"]}, ("query",))
        fastest, tokens = np.inf, 0.0
        for _ in range(3):  # the first compiles
            before = time.perf_counter()
            encoded = tokenizer.encode(made, LENGTH)
            middle = time.perf_counter()
            arguments = {"transform": (("resize", {}),), "image_size": (8, 8), "batch_size": 256, "mesh": mesh}
            found = inference.predict(only, params, {"query": encoded}, **arguments)["embedding"]
            if time.perf_counter() - before < fastest:
                fastest, tokens = time.perf_counter() - before, middle - before
        assert np.isfinite(found).all() and found.shape == (rows, 100)
        print(f"| {name} | {count:,} | {60 * rows / fastest:,.0f} | {tokens / fastest:.0%} |", flush=True)


def work(system: str, arguments) -> None:
    """Runs one timing, in its own process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    if system == "ours":
        found = time_ours(arguments.seconds)
    else:
        found = time_transformers(arguments.seconds, arguments.threads, "hidden" in system, arguments.attention)
    print(json.dumps(found))


def measure(system: str, arguments) -> dict:
    """Runs one timing in a new process."""
    command = [sys.executable if system == "ours" else arguments.torch_python, __file__, "--work", system]
    command += [
        f"--threads={arguments.threads}",
        f"--seconds={arguments.seconds}",
        f"--attention={arguments.attention}",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    return in_process(command, env, system)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=15.0, help="of steps per timing")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and transformers")
    parser.add_argument("--attention", default="sdpa", choices=("sdpa", "eager"), help="of transformers")
    parser.add_argument("--embed", action="store_true", help="time the embedding of queries instead")
    parser.add_argument("--rows", type=int, default=20_000, help="queries to embed")
    parser.add_argument("--work", choices=SYSTEMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work, arguments)
    if arguments.embed:
        return embed(arguments.rows, arguments.threads)
    rounds = [{system: measure(system, arguments) for system in SYSTEMS} for _ in range(arguments.rounds)]
    print("| system | version | ms per step | this / ours | CPU ms per step | this / ours | first loss | last loss |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for system in SYSTEMS:
        cells = []
        for key in ("ms", "cpu_ms"):
            own = [timings[system][key] for timings in rounds]
            ratios = [timings[system][key] / timings["ours"][key] for timings in rounds]
            cells += [spread(own, 0), spread(ratios, 2)]
        last = rounds[-1][system]
        losses = f"{last['first_loss']:.3f} | {last['last_loss']:.3f}"
        print(f"| {system} | {last['version']} | {' | '.join(cells)} | {losses} |", flush=True)
    step = statistics.median(timings["ours"]["ms"] for timings in rounds)
    ms = tokenizer_ms()
    print(f"\nThe tokenizer takes {ms:.2f} ms for {ROWS} texts of 1 to 20 words, {ms / step:.1%} of our step.")


if __name__ == "__main__":
    main()
