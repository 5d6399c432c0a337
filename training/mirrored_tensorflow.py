"""Several devices on TensorFlow: `tf.distribute.MirroredStrategy` under `model.fit`.

Each device holds a copy of the weights and of the data set, works through its
part of every batch, and all apply the sum of the gradients. Keras's
optimizers, moving averages and metrics know the strategy; what is here is the
part of it that they leave to the caller.

Batch norm takes its statistics from the part of the batch on its device, as in
the papers' own runs on two GPUs, and the moving statistics are those of the
first device: so the result is that of one device with smaller batches in the
normalisation, and not that of one device. (JAX's `keras.distribution`
normalises over the whole batch.) mixup and CutMix take their partners from
the part of the batch, too.
"""

import contextlib
import functools
import os

import tensorflow as tf

from training.machine import cores

SEED_STEP = 1_000_003  # between the seeds of two devices


def devices_here():
    """Names of the GPUs, or of the processor's logical devices where there is none."""
    return [device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]


def split_processor(devices):
    """Where there is no GPU, makes the processor that many logical devices, with an equal part of the cores each.

    A deep network of narrow layers has too little work in an operation for
    several cores: nopre ResNet-164 in bfloat16 makes 60 to 63 steps a minute as
    two halves of a batch on a core each, 54 to 58 as one batch on both (lines of
    `python -m training train mpelu_nopre_resnet164.cifar100-short --devices 2
    --stop-after 3.7` and of it without `--devices`, in turns, two turns; two
    cores of an AMD EPYC). It comes before TensorFlow's first operation, else it
    does nothing, and makes no more devices than there are cores.
    """
    devices = min(devices, cores())
    if devices == 1 or tf.config.list_physical_devices("GPU"):
        return
    os.environ["TF_OVERRIDE_GLOBAL_THREADPOOL"] = "1"  # else all devices of a processor share the threads of one
    with contextlib.suppress(RuntimeError):  # the first operation was made
        tf.config.threading.set_intra_op_parallelism_threads(cores() // devices)
        processor = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(processor, devices * [tf.config.LogicalDeviceConfiguration()])


@functools.cache
def strategy(*devices):
    """The strategy; its scope is entered before anything is built.

    One for the process: two on the same devices number their sums alike, and TensorFlow then takes those of the
    second for those of the first.
    """
    return tf.distribute.MirroredStrategy(devices)


def is_distributed():
    """Whether we are in the scope of such a strategy."""
    return tf.distribute.has_strategy()


def distributed_rows(batches, batch_size):
    """Batches of row numbers in equal parts, one for each device of the current strategy.

    Keras looks at the first batch before `fit` and then starts the iterator
    anew; a generator that it had looked into would have lost that batch.

    Args:
        batches: A function without arguments: the batches from the first.
        batch_size: Rows of a whole batch, a multiple of the devices.
    """
    strategy = tf.distribute.get_strategy()
    count = strategy.num_replicas_in_sync
    size = batch_size // count

    def parts():
        for (rows,) in batches():
            yield from ((rows[first : first + size],) for first in range(0, batch_size, size))

    def dataset(context):
        signature = (tf.TensorSpec((size,), tf.int32),)
        return tf.data.Dataset.from_generator(parts, output_signature=signature).prefetch(2 * count)

    return strategy.distribute_datasets_from_function(dataset)


def separate_seeds(variables):
    """Gives the random states of each device a seed of its own; else all would draw alike.

    A checkpoint holds those of the first device, from which this makes the others'.
    """
    strategy = tf.distribute.get_strategy()
    for variable in variables:
        if variable.path.endswith("seed_generator_state"):
            copies = strategy.experimental_local_results(variable.value)
            seed, draws = copies[0].numpy()
            for number, copy in enumerate(copies):
                copy.assign(tf.constant([seed + number * SEED_STEP, draws], copy.dtype))
