volume=$PWD/data
docker run -v $volume:/data ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $model
