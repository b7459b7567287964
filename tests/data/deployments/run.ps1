$model = "org/a"
docker run --gpus all -e HF_TOKEN=$env:HF_TOKEN -v ${PWD}/data:/data `
  ghcr.io/huggingface/text-generation-inference:3.1.0 `
  --model-id $model
