"""Estimates what an accelerator host must deliver: pictures and bytes per second, and the cores needed to decode them.

    python benchmarks/host_needs.py [--rates=benchmarks/pipeline.json]

The demand is what the devices of one host would consume if only the network's multiplications took time: peak FLOP/s x
MFU / (three times the forward FLOPs of a picture). Assumptions, none of them measured here:

    peaks            dense bfloat16, from data sheets (NVIDIA: H100 SXM; Google Cloud: v5e), as in
                     benchmarks/weak_scaling.py
    MFU              45 %, as there
    FLOPs            from the papers (ConvNeXt, DeiT) at 224 px; at 384 px scaled with the pixels (ConvNeXt) or with the
                     tokens and their square (ViT)
    the host's cores virtual ones, as Google Cloud describes these machine types: two of them share a core
    cores needed     of the machine that measured the rates: one core's median of `ours`, scaled linearly, for crops of
                     224 px out of 500 x 500 whatever the network's input size

The host reads JPEGs and sends uint8 pictures to the devices.
"""

import argparse
import json
import pathlib
import statistics

# devices per host, peak bfloat16 FLOP/s of each, assumed MFU, virtual cores of the host
HOSTS = {
    "v5e, 8 chips (ct5lp-hightpu-8t)": (8, 197e12, 0.45, 224),
    "8 x H100 SXM (a3-highgpu-8g)": (8, 989e12, 0.45, 208),
}
# name: GMAC of a picture's forward pass, side in pixels
NETWORKS = {
    "ConvNeXt-XL, 224 px": (60.9, 224),
    "ConvNeXt-XL, 384 px": (179.0, 384),
    "ViT-B/16, 224 px": (17.6, 224),
    "ViT-B/16, 384 px": (55.5, 384),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=pathlib.Path, default=pathlib.Path(__file__).with_name("pipeline.json"))
    arguments = parser.parse_args()
    measured = json.loads(arguments.rates.read_text())
    a_core = statistics.median(measured["pictures_a_second"]["1"]["ours"])
    print(
        f"{a_core:,.0f} pictures per second and core, {measured['bytes_a_picture'] / 1e3:.1f} kB each "
        f"({arguments.rates.name}, {measured['made']})\n"
    )
    print(
        "| host | network | MFU | pictures per second | JPEG MB/s | MB/s to devices | cores needed | host cores |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|"
    )
    for host, (devices, peak, utilisation, cores) in HOSTS.items():
        for network, (multiplications, side) in NETWORKS.items():
            pictures = devices * peak * utilisation / (3 * 2 * multiplications * 1e9)
            print(
                f"| {host} | {network} | {utilisation:.0%} | {pictures:,.0f} | "
                f"{pictures * measured['bytes_a_picture'] / 1e6:,.0f} | {pictures * side * side * 3 / 1e6:,.0f} | "
                f"{pictures / a_core:.1f} | {cores} |"
            )


if __name__ == "__main__":
    main()
