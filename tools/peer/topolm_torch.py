#!/usr/bin/env python3
"""TopoLM in plain PyTorch: what ./bench --compare measures us against.

The same network, losses and AdamW step as ours, written from the paper's equations the way PyTorch users write
them. --check-golden proves that it is the same model; otherwise it trains on random tokens for a few steps and
prints one line of JSON. Threads of the BLAS are the caller's business (OPENBLAS_NUM_THREADS).
"""
import argparse
import json
import math
import resource
import struct
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

PRESETS = {  # model/config.cpp has the same
    "nano": dict(n_layer=2, n_head=4, n_embd=36, block_size=64, vocab_size=512, radius=2, neighborhoods=3),
    "tiny": dict(n_layer=4, n_head=4, n_embd=196, block_size=256, vocab_size=4096, radius=5, neighborhoods=5),
    "base": dict(n_layer=12, n_head=16, n_embd=784, block_size=1024, vocab_size=50304, radius=5, neighborhoods=5),
}
BATCH = {"nano": (8, 64), "tiny": (8, 256), "base": (2, 256)}


class Block(torch.nn.Module):
    def __init__(self, c, n_head):
        super().__init__()
        self.n_head = n_head
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.ln_1, self.ln_2 = torch.nn.Parameter(torch.ones(c)), torch.nn.Parameter(torch.ones(c))
        self.attn = torch.nn.ModuleDict({"c_attn": linear(c, 3 * c), "c_proj": linear(c, c)})
        self.mlp = torch.nn.ModuleDict({"c_fc": linear(c, 4 * c), "c_proj": linear(4 * c, c)})

    def attend(self, x, mask):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.n_head, -1).transpose(1, 2) for z in self.attn.c_attn(x).split(c, dim=2))
        scores = (q @ k.transpose(-2, -1)) * (c // self.n_head) ** -0.5
        y = F.softmax(scores.masked_fill(mask[:t, :t], -math.inf), dim=-1) @ v
        return self.attn.c_proj(y.transpose(1, 2).reshape(b, t, c))

    def forward(self, x, mask, tap):
        """The block's output, and the activations of its two sites."""
        branch = self.attend(F.layer_norm(x, x.shape[-1:], self.ln_1), mask)
        x = x + branch
        sites = [branch if tap == "pre" else x]
        branch = self.mlp.c_proj(F.gelu(self.mlp.c_fc(F.layer_norm(x, x.shape[-1:], self.ln_2))))
        x = x + branch
        return x, sites + [branch if tap == "pre" else x]


def spatial_loss(activations, members, places):
    """Mean over neighborhoods of (1 - Pearson(correlations of units, 1/(1+distance))) / 2, as published: one
    gather and one corrcoef a neighborhood."""
    x = activations.flatten(0, 1)
    losses = []
    for units in members:
        low = torch.tril_indices(len(units), len(units), -1)
        r = torch.corrcoef(x[:, units].T)[low[0], low[1]]
        p = places[units].to(r.dtype)
        inverse = 1 / (1 + torch.cdist(p, p)[low[0], low[1]])
        losses.append((1 - torch.corrcoef(torch.stack([r, inverse]))[0, 1]) / 2)
    return torch.stack(losses).mean()


class TopoLM(torch.nn.Module):
    def __init__(self, n_layer, n_head, n_embd, block_size, vocab_size, radius, neighborhoods, alpha=2.5, site="pre"):
        super().__init__()
        self.alpha, self.tap, self.neighborhoods = alpha, site, neighborhoods
        self.wte = torch.nn.Embedding(vocab_size, n_embd)
        self.wpe = torch.nn.Embedding(block_size, n_embd)
        self.h = torch.nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.ln_f = torch.nn.Parameter(torch.ones(n_embd))
        for name, p in self.named_parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, 0, 0.02 / (math.sqrt(2 * n_layer) if "c_proj" in name else 1))
        self.register_buffer("mask", torch.ones(block_size, block_size, dtype=torch.bool).triu(1))
        side = math.isqrt(n_embd)
        lattice = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        self.set_places(torch.stack([lattice[torch.randperm(n_embd)] for _ in range(2 * n_layer)]), side, radius)

    def set_places(self, places, side, radius):
        """places[site, unit]: row and column. Finds the units of every neighborhood, [site, neighborhood, unit]."""
        self.places = places
        inside = range(radius - 1, side - radius + 1)
        centres = torch.tensor([(row, col) for row in inside for col in inside])
        near = (places[:, None] - centres[None, :, None]).abs().amax(-1) < radius
        self.members = near.nonzero()[:, 2].view(len(places), len(centres), -1)

    def draw(self):
        return [torch.randperm(self.members.shape[1])[: self.neighborhoods] for _ in self.places]

    def forward(self, tokens, targets, neighborhoods):
        """Task loss, and the spatial loss of every site."""
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        sites = []
        for block in self.h:
            x, tapped = block(x, self.mask, self.tap)
            sites += tapped
        logits = F.linear(F.layer_norm(x, x.shape[-1:], self.ln_f), self.wte.weight)
        task = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.flatten(), ignore_index=-1)
        if self.alpha == 0:
            return task, []
        return task, [spatial_loss(a, self.members[i][neighborhoods[i]], self.places[i]) for i, a in enumerate(sites)]

    def optimizer(self, lr=1e-3):
        groups = [dict(params=[p for p in self.parameters() if (p.dim() > 1) == decayed], weight_decay=decay)
                  for decayed, decay in ((True, 0.1), (False, 0.0))]
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, foreach=True)

    def step(self, optimizer, tokens, targets, neighborhoods, dtype="fp32"):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            task, spatial = self(tokens, targets, neighborhoods)
            loss = task + self.alpha * sum(spatial)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return task.item(), [s.item() for s in spatial], norm.item()


def spatial_step(model, batch, seq):
    """The spatial loss of all sites alone, forward and backward: what --only spatial times."""
    c = model.wte.weight.shape[1]
    activations = [torch.randn(batch, seq, c, requires_grad=True) for _ in model.places]

    def step():
        losses = [spatial_loss(a, model.members[i][drawn], model.places[i])
                  for (i, a), drawn in zip(enumerate(activations), model.draw())]
        (model.alpha * sum(losses)).backward()
        for a in activations:
            a.grad = None
        return None, [loss.item() for loss in losses]

    return step


def optimizer_step(model, optimizer):
    """Clipping and AdamW alone: what --only optimizer times."""
    for p in model.parameters():
        p.grad = torch.randn_like(p)

    def step():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return None, []

    return step


def training_step(model, optimizer, batch, seq, dtype):
    def step():
        tokens = torch.randint(model.wte.weight.shape[0], (batch, seq + 1))
        return model.step(optimizer, tokens[:, :-1], tokens[:, 1:], model.draw(), dtype)[:2]

    return step


def read_safetensors(path):
    data = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    types = {"F32": torch.float32, "I32": torch.int32}
    tensors = {}
    for name, t in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            raw = bytearray(data[8 + size + begin : 8 + size + end])
            tensors[name] = torch.frombuffer(raw, dtype=types[t["dtype"]]).view(t["shape"])
    return tensors


def check_golden(directory, tolerance=1e-5):
    """Every step of every golden set: losses within `tolerance`, gradient norms within it relatively."""
    worst = 0
    for path in sorted(Path(directory).glob("*.json")):
        golden, tensors = json.loads(path.read_text()), read_safetensors(path.with_suffix(".safetensors"))
        config = golden["config"]
        model = TopoLM(**config)
        places = tensors["coordinates"].long()
        model.set_places(places, int(places.max()) + 1, config["radius"])
        weights = {name[len("step0.param."):]: t for name, t in tensors.items() if name.startswith("step0.param.")}
        with torch.no_grad():
            for name, p in model.named_parameters():
                short = name if name in weights else name + ".weight"
                p.copy_(weights.pop(short))
        assert not weights, f"unused weights in {path}: {list(weights)}"
        optimizer = model.optimizer()
        for i, want in enumerate(golden["steps"]):
            for group in optimizer.param_groups:
                group["lr"] = want["lr"]
            tokens, targets = (tensors[f"step{i}.{name}"].long() for name in ("tokens", "targets"))
            drawn = [torch.tensor(n) for n in want["neighborhoods"]]
            task, spatials, norm = model.step(optimizer, tokens, targets, drawn)
            errors = [abs(task - want["task_loss"]), abs(norm / want["grad_norm"] - 1)]
            errors += [abs(a - b) for a, b in zip(spatials, want["spatial_loss"])]
            worst = max(worst, *errors)
            print(f"{path.stem} step {i}: task {task:.7f}, largest error {max(errors):.1e}", file=sys.stderr)
    assert 0 < worst < tolerance, f"the largest error is {worst}"


def blas():
    """The library that multiplies matrices, from what is mapped into this process."""
    names = {Path(line.split()[-1]).resolve().name for line in open("/proc/self/maps") if "/" in line}
    for word, name in (("libmkl_", "MKL"), ("libopenblas", "OpenBLAS"), ("libblis", "BLIS"), ("libblas.so", "reference BLAS")):
        for file in names:
            if file.startswith(word):
                return f"{name} ({file})"
    return "MKL" if torch.backends.mkl.is_available() else "unknown BLAS"


@torch.no_grad()
def generate(model, count, dtype, prompt=16):
    """Tokens a second of one sequence, each drawn from all logits: as the official generate() does, which runs the
    whole sequence for every token; and with keys and values cached, as PyTorch users do who are in a hurry. In bf16
    the weights are bf16 themselves: autocast would convert them for every token."""
    model = model.to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    wte, c = model.wte.weight, model.wte.weight.shape[1]
    layer_norm = lambda x, weight: F.layer_norm(x, (c,), weight)

    def logits(tokens, caches):
        start = caches[0][0].shape[2] if caches[0] else 0
        x = wte[tokens] + model.wpe.weight[start : start + tokens.shape[1]]
        for block, cache in zip(model.h, caches):
            t = x.shape[1]
            heads = (z.view(1, t, block.n_head, -1).transpose(1, 2)
                     for z in block.attn.c_attn(layer_norm(x, block.ln_1)).split(c, dim=2))
            q, k, v = heads
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = k, v
            scores = q @ k.transpose(-2, -1) * (c // block.n_head) ** -0.5
            if t > 1:
                scores = scores.masked_fill(model.mask[:t, :t], -math.inf)
            x = x + block.attn.c_proj((F.softmax(scores, -1) @ v).transpose(1, 2).reshape(1, t, c))
            x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(layer_norm(x, block.ln_2))))
        return F.linear(layer_norm(x[:, -1], model.ln_f), wte)

    def run(cached):
        tokens, caches = torch.ones(1, prompt, dtype=torch.long), [[] for _ in model.h]
        new = tokens
        for i in range(count + 2):
            if i == 2:  # the first two warm up
                start = time.perf_counter()
            probabilities = F.softmax(logits(new if cached else tokens, caches).float(), -1)
            new = torch.multinomial(probabilities, 1)
            tokens = torch.cat((tokens, new), 1)
            if not cached:
                caches = [[] for _ in model.h]
        return round(count / (time.perf_counter() - start), 2)

    return dict(framework="PyTorch " + torch.__version__.split("a")[0], blas=blas(), threads=torch.get_num_threads(),
                dtype=dtype, prompt=prompt, tokens=count, tokens_per_second=run(True),
                tokens_per_second_without_cache=run(False))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--seq", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", choices=["step", "spatial", "optimizer"], default="step", help="what of a step to time")
    parser.add_argument("--alpha", type=float, default=2.5, help="0 leaves the spatial loss out")
    parser.add_argument("--generate", metavar="N", type=int, default=0, help="no training: generate N tokens")
    parser.add_argument("--check-golden", metavar="DIR")
    o = parser.parse_args()
    torch.manual_seed(1337)
    if o.threads:
        torch.set_num_threads(o.threads)
    if o.check_golden:
        return check_golden(o.check_golden)

    config = PRESETS[o.preset]
    if o.generate:
        return print(json.dumps(generate(TopoLM(**config), o.generate, o.dtype) | dict(preset=o.preset)))
    batch, seq = o.batch or BATCH[o.preset][0], o.seq or BATCH[o.preset][1]
    model = TopoLM(**config, alpha=o.alpha)
    optimizer = model.optimizer()
    step = {"step": lambda: training_step(model, optimizer, batch, seq, o.dtype),
            "spatial": lambda: spatial_step(model, batch, seq),
            "optimizer": lambda: optimizer_step(model, optimizer)}[o.only]()
    milliseconds, cpu_milliseconds = [], []
    for _ in range(o.steps + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        task, spatials = step()
        milliseconds.append(1000 * (time.perf_counter() - start))
        cpu_milliseconds.append(1000 * (time.process_time() - cpu_start))
    milliseconds, cpu_milliseconds = milliseconds[1:], cpu_milliseconds[1:]  # the first one warms up
    median = sorted(milliseconds)[len(milliseconds) // 2]
    print(json.dumps(dict(
        framework="PyTorch " + torch.__version__.split("a")[0], blas=blas(), threads=torch.get_num_threads(),
        only=o.only, preset=o.preset, dtype=o.dtype, batch=batch, seq=seq, alpha=o.alpha,
        ms=[round(ms, 2) for ms in milliseconds], cpu_ms=[round(ms, 2) for ms in cpu_milliseconds],
        tokens_per_second=round(1000 * batch * seq / median, 1),
        peak_rss_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, task_loss=task,
        spatial_loss=sum(spatials) / max(1, len(spatials)))))


if __name__ == "__main__":
    main()
