"""A Gradio app over faiss, which `serving.py` compares the search service with: results like a listing.

    <python with gradio and faiss-cpu> benchmarks/gradio_faiss.py --listings=100000 --dim=128

The event "queued" is what Gradio makes of a function by default, with as many workers as there are cores; "direct"
skips its queue. Prints its port.
"""

import argparse
import os
import socket

import faiss
import gradio
import numpy as np


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    given = parser.parse_args()
    vectors = np.random.default_rng(0).normal(size=(given.listings, given.dim)).astype(np.float32)  # as `serving.py`
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(given.dim)
    index.add(vectors)
    faiss.omp_set_num_threads(1)  # requests are answered by threads of their own

    def find(listing: str, k: float) -> list[list]:
        own = int(listing.rpartition("-")[2])
        scores, rows = index.search(vectors[own : own + 1], int(k) + 1)
        found = [(row, score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if row != own]
        return [[f"listing-{row:07d}", f"Product {row}", score] for row, score in found[: int(k)]]

    with gradio.Blocks(analytics_enabled=False) as app:
        listing, k = gradio.Textbox(label="Like the listing"), gradio.Number(24, label="Results")
        shown = gradio.Dataframe(headers=["id", "title", "score"])
        for name, queue in (("queued", True), ("direct", False)):
            button = gradio.Button(name)
            button.click(find, [listing, k], shown, api_name=name, queue=queue, concurrency_limit=os.cpu_count())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app.queue(max_size=None)
    app.launch(server_name="127.0.0.1", server_port=port, quiet=True, prevent_thread_lock=True, show_error=True)
    print(f"port {port}", flush=True)
    app.block_thread()


if __name__ == "__main__":
    main()
