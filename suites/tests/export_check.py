"""What other trainers make of an exported plan, by their own parsers. Run by export_parsers_test.cpp:

    export_check.py SYSTEM FILE WORLD key=value...  [-- FILE WORLD key=value...]...

Each FILE, for WORLD processes, is parsed as the system itself does it; what it then says must be the values given.
"""
import importlib
import math
import os
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import torch


def megatron(file, world):
    from megatron.training import arguments, training
    from megatron.training.argument_utils import core_transformer_config_from_args
    text = Path(file).read_text()
    arguments.get_device_arch_version = lambda: 9  # Hopper; it would ask a GPU
    os.environ.pop("CUDA_DEVICE_MAX_CONNECTIONS", None)
    os.environ.update(re.findall(r"(\w+)=(\S+) (?=.*torchrun)", text), WORLD_SIZE=str(world), RANK="0")
    sys.argv = ["pretrain_gpt.py"] + shlex.split(text, comments=True)
    args = arguments.parse_args()
    arguments.validate_args(args)
    args.apply_rope_fusion = False  # Transformer Engine's, which a machine without GPU has not
    model = core_transformer_config_from_args(args)
    optimizer, ddp = training.get_megatron_optimizer_config(args)[0], training.get_megatron_ddp_config(args)
    strategies = {"no_shard": 0, "optim": 1, "optim_grads": 2, "optim_grads_params": 3}
    return dict(
        dp=args.data_parallel_size, cp=model.context_parallel_size, exchange=model.cp_comm_type,
        tp=model.tensor_model_parallel_size, pp=model.pipeline_model_parallel_size,
        virtual=model.virtual_pipeline_model_parallel_size or 1, sp=model.sequence_parallel,
        layout=args.pipeline_model_parallel_layout,
        zero=strategies[args.data_parallel_sharding_strategy] if args.use_megatron_fsdp else
        int(args.use_distributed_optimizer), bucket=ddp.bucket_size, overlap=ddp.overlap_grad_reduce,
        float32_gradients=ddp.grad_reduce_in_fp32, micro=args.micro_batch_size, batch=args.global_batch_size,
        seq=args.seq_length, recompute=model.recompute_granularity, method=model.recompute_method,
        recomputed=model.recompute_num_layers, modules=",".join(model.recompute_modules or []),
        offload=optimizer.optimizer_cpu_offload, activations=model.cpu_offloading_num_layers,
        offloaded=",".join(model.offload_modules or []), bf16=model.bf16,
        layers=model.num_layers, hidden=model.hidden_size, ffn=model.ffn_hidden_size, heads=model.num_attention_heads,
        kv_heads=model.num_query_groups, head_dim=model.kv_channels, vocab=args.vocab_size,
        norm=f"{model.normalization} {model.layernorm_epsilon}", swiglu=model.gated_linear_unit,
        bias=model.add_bias_linear, tied=not args.untie_embeddings_and_output_weights, rope=args.rotary_base,
        rope_factor=args.rope_scaling_factor if args.use_rope_scaling else None, lr=optimizer.lr,
        betas=f"{optimizer.adam_beta1} {optimizer.adam_beta2}", decay=optimizer.weight_decay, clip=optimizer.clip_grad)


def deepspeed(file, world):
    from deepspeed.runtime import config as ds, lr_schedules

    class Mpu:  # tells the parser how many replicas there are
        get_data_parallel_world_size = staticmethod(lambda: world)
    ds.dist.get_rank = lambda: 0
    c = ds.DeepSpeedConfig(file, mpu=Mpu())
    zero, checkpoint = c.zero_config, c.activation_checkpointing_config
    weights = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], **c.optimizer_params)
    if c.scheduler_name:
        getattr(lr_schedules, c.scheduler_name)(weights, **c.scheduler_params)
    rest = lambda offload: getattr(offload.device, "value", offload.device) if offload else "none"  # noqa: E731
    return dict(
        dp=c.world_size, cp=c._param_dict.get("sequence_parallel_size", 1), tp=c.tensor_parallel_config.autotp_size, pp=c.pipeline["stages"], zero=int(zero.stage),
        bucket=zero.reduce_bucket_size if zero.stage else None, overlap=zero.overlap_comm, batch=c.train_batch_size,
        prefetch=zero.prefetch_bucket_size, smallest=zero.param_persistence_threshold,
        micro=c.train_micro_batch_size_per_gpu, microbatches=c.gradient_accumulation_steps,
        optimizer_on=rest(zero.offload_optimizer), weights_on=rest(zero.offload_param),
        recomputed=c.pipeline["activation_checkpoint_interval"], activations_on_host=checkpoint.cpu_checkpointing,
        bf16=c.bfloat16_config.enabled, gradients=c.grad_accum_dtype, sent=c.communication_data_type,
        optimizer=c.optimizer_name, lr=weights.defaults["lr"], betas=weights.defaults["betas"],
        decay=weights.defaults["weight_decay"], clip=c.gradient_clipping)


def fsdp(file, world):
    from accelerate import ParallelismConfig
    from accelerate.commands import launch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env
    args, config, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(
        ["--config_file", file, "--main_process_ip", "localhost", "--main_process_port", "29511", "script.py"]))
    for name in [n for n in os.environ if n.startswith(("FSDP_", "PARALLELISM_CONFIG_"))]:
        del os.environ[name]
    os.environ.update(prepare_multi_gpu_env(args))
    assert args.num_processes == world, args.num_processes
    mesh = ParallelismConfig()
    read = dict(kind=config.distributed_type.value, machines=args.num_machines, mixed=args.mixed_precision, dp=None,
                tp=mesh.tp_size, cp=mesh.cp_size)
    if args.use_parallelism_config:
        read.update(dp=mesh.data_parallel_size, shape=mesh._get_mesh())
    if args.use_fsdp:
        p = FullyShardedDataParallelPlugin()
        read.update(version=p.fsdp_version, reshard=p.reshard_after_forward, offload=type(p.cpu_offload).__name__,
                    recompute=p.activation_checkpointing, activations_on_host=p.activation_checkpointing_offload,
                    unit=",".join(p.transformer_cls_names_to_wrap))
    return read


def torchtitan(file, world):
    from torchtitan.config.manager import ConfigManager
    from torchtitan.distributed import ParallelDims
    from torchtitan.distributed.pipeline_parallel import get_schedule_class
    file = Path(file)
    sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    c = ConfigManager().parse_args(["--module", file.stem, "--config", "plan"])
    dims = ParallelDims.from_config(c.parallelism, world)
    shape = c.model_spec.model
    shape.update_from_config(config=c)
    with torch.device("meta"):
        model = shape.build()
    names = {name for name, _ in model.named_modules()}
    parts = c.parallelism.module_fqns_per_model_part or []
    assert all(name in names for part in parts for name in part), parts
    assert not parts or sum(parts, [])[1:-2] == [f"layers.{i}" for i in range(len(shape.layers))], parts
    replicas = dims.dp_replicate * dims.dp_shard
    groups = {g.pattern: g.optimizer_kwargs for g in c.optimizer.param_groups}
    rope = shape.layers[0].attention.rope
    accumulated = c.training.global_batch_size // (c.training.local_batch_size * replicas)
    pipelined = c.training.local_batch_size // c.parallelism.pipeline_parallel_microbatch_size if dims.pp > 1 else 1
    return dict(
        replicas=dims.dp_replicate, shards=dims.dp_shard, cp=dims.cp,
        balance=c.parallelism.context_parallel_load_balancer, tp=dims.tp, pp=dims.pp,
        sp=c.parallelism.enable_sequence_parallel, reshard=c.parallelism.fsdp_reshard_after_forward,
        schedule=get_schedule_class(c.parallelism.pipeline_parallel_schedule).__name__,
        chunks=",".join(str(sum(n.startswith("layers") for n in part)) for part in parts),
        batch=c.training.global_batch_size, microbatches=accumulated * pipelined, seq=c.training.seq_len,
        recompute=c.activation_checkpoint and c.activation_checkpoint._owner.__name__,
        offload=c.training.enable_cpu_offload, weights=c.training.mixed_precision_param,
        parameters=sum(p.numel() for p in model.parameters()), layers=len(shape.layers), tied=shape.enable_weight_tying,
        heads=shape.layers[0].attention.n_heads, kv_heads=shape.layers[0].attention.n_kv_heads,
        rope=f"{rope.dim} {rope.theta:g} {rope.scaling} {rope.scaling_factor:g}", eps=shape.norm.eps,
        lr=groups[".*"]["lr"], betas=groups[".*"]["betas"], decay=groups[".*"]["weight_decay"],
        norm_decay=groups["norm"]["weight_decay"], clip=c.training.max_norm, warmup=c.lr_scheduler.warmup_steps,
        least_lr=c.lr_scheduler.min_lr_factor)


def same(read, expected):
    try:
        return math.isclose(float(read), float(expected), rel_tol=1e-9)
    except (TypeError, ValueError):
        return str(read) == expected


def main(system, *rest):
    wrong = []
    for case in " ".join(shlex.quote(r) for r in rest).split(" -- "):
        file, world, *values = shlex.split(case)
        read = globals()[system](file, int(world))
        print(file, SimpleNamespace(**read))
        for key, expected in (value.split("=", 1) for value in values):
            if not same(read[key], expected):
                wrong.append(f"{file}: {key} is {read[key]}, expected {expected}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
