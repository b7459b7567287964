docker run --gpus all `
  -p 8080:80 `
  ghcr.io/huggingface/text-generation-inference:3.3.7 `
  --model-id Qwen/Qwen2.5-7B-Instruct
