import subprocess
subprocess.run(["docker", "run", "--gpus", "all", "ghcr.io/huggingface/text-generation-inference:3.3.7", "--model-id", "Qwen/Qwen2.5-7B-Instruct"])
