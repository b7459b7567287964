COUNT = 2
pod = runpod.create_pod(
    name="llm", image_name="ghcr.io/huggingface/text-generation-inference:3.3.4", gpu_type_id="NVIDIA L40S", gpu_count=COUNT,
    docker_args=f"--model-id org/a --num-shard {COUNT} --revision {REV}", ports="80/http", volume_mount_path="/data",
)
