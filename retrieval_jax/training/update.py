"""The update step: one gradient step on a global batch, the same on one device or many."""

import jax
import jax.numpy as jnp

from retrieval_jax.training import guards, mixing, optim, sharding


def make_update(
    task,
    optimizer,
    rng,
    ema_decay: float,
    by_batch,
    by_state,
    *,
    pictures=(),
    beside=(),
    batch_transforms=(),
    accumulate_steps: int = 1,
    non_finite: str = "",
    frozen=None,
    averaged=None,
):
    """Builds the update step: one gradient step on a global batch, the same on one device or many.

    Args:
      task: `tasks.Task`.
      optimizer: optax transformation.
      rng: key of the run; the step number is folded in.
      ema_decay: decay of the moving average.
      by_batch: sharding of the batch.
      by_state: sharding of the state, one for all or those of `sharding.state_sharding`.
      pictures: names of the columns of pictures, see `mixing.apply`.
      beside: names of the columns of examples beside, see `mixing.apply`.
      batch_transforms: (name, kwargs) pairs of `mixing.apply`, on the whole batch.
      accumulate_steps: parts that the batch is cut into, see `optim.accumulated`.
      non_finite: "skip" skips steps with a non-finite loss or gradient; "stop" only reports them; "" does not look.
      frozen: tree of bools, True for parameters that get no gradient; None for none.
      averaged: tree of bools, True for parameters that are averaged; None for all.

    Returns:
      Jitted function (state, batch, constants) -> (state, {name: scalar}); the old state's buffers are donated.
    """

    def whole(params):
        return sharding.gathered(params, by_state["params"]) if isinstance(by_state, dict) else params

    def update(state, batch, constants):
        step, rng_step, ema = state["step"], jax.random.fold_in(rng, state["step"]), whole(state["ema"])
        if batch_transforms:
            batch = mixing.apply(batch, jax.random.fold_in(rng_step, 1), batch_transforms, pictures, beside)

        def gradients_of(params, batch, part):
            part_rng = rng_step if accumulate_steps == 1 else jax.random.fold_in(rng_step, part)

            def loss_fn(params):
                params = whole(params)
                if frozen is not None:  # no gradient is computed for what does not move
                    params = jax.tree.map(lambda p, still: jax.lax.stop_gradient(p) if still else p, params, frozen)
                return task.loss_fn(params, batch, rng=part_rng, step=step, ema=ema, constants=constants, train=True)

            return jax.value_and_grad(loss_fn, has_aux=True)(params)

        with jax.sharding.use_abstract_mesh(by_batch.mesh.abstract_mesh):  # contrastive losses go round the devices
            (loss, values), gradients = optim.accumulated(gradients_of, accumulate_steps)(state["params"], batch)
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], updates)
        ema = optim.ema_update(state["ema"], params, step, ema_decay, averaged)
        after = {"params": params, "ema": ema, "opt_state": opt_state, "step": step + 1}
        values = {"loss": loss, **values}
        if non_finite:
            after, more = guards.keep_finite(state, after, loss, gradients, non_finite == "skip")
            values |= more
        return after, values

    return jax.jit(
        update,
        in_shardings=(by_state, by_batch, sharding.replicated(by_batch.mesh)),
        donate_argnums=0,
        out_shardings=(by_state, sharding.replicated(by_batch.mesh)),
    )
